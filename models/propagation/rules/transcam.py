"""TransCAM: each patch gathers the activation of the patches that it attends to."""

from __future__ import annotations

from torch import Tensor

from models.propagation.rule import BlockKnobs, Observation, Rule


def coupled(activation: Tensor, observation: Observation, _grid: tuple[int, int], _knobs: BlockKnobs) -> Tensor:
    """The attention times the activation (C, N)."""
    return activation @ observation.read("patches").mT


RULE = Rule(
    coupled,
    BlockKnobs,
    "M' = A M, the mean for the sum over blocks, a constant factor; TransCAM (Li et al. 2023, eq. 5): `published`",
    needs=frozenset({"patches"}),
    raw=True,
)
