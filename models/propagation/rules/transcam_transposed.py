"""TransCAM's other direction: each patch gathers the activation of the patches that attend to it."""

from __future__ import annotations

from torch import Tensor

from models.propagation.rule import BlockKnobs, Observation, Rule


def coupled(activation: Tensor, observation: Observation, _grid: tuple[int, int], _knobs: BlockKnobs) -> Tensor:
    """The transposed attention times the activation (C, N)."""
    return activation @ observation.read("patches")


RULE = Rule(
    coupled,
    BlockKnobs,
    "M' = A^T M, otherwise as transcam; TransCAM's `attnagg`: `released`",
    needs=frozenset({"patches"}),
    raw=True,
)
