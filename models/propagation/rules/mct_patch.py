"""MCTformer's patch affinity: as TransCAM, on the rectified and normalised activation."""

from __future__ import annotations

from torch import Tensor

from models.propagation.rule import BlockKnobs, Observation, Rule


def coupled(activation: Tensor, observation: Observation, _grid: tuple[int, int], _knobs: BlockKnobs) -> Tensor:
    """The attention times the activation (C, N)."""
    return activation @ observation.read("patches").mT


RULE = Rule(
    coupled,
    BlockKnobs,
    "M' = A max(M, 0) / max(M); patch affinity of MCTformer (Xu et al., CVPR 2022), on any map: `released`",
    needs=frozenset({"patches"}),
)
