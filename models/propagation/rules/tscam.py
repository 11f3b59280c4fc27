"""TS-CAM: the activation of a patch times the class token's attention to it."""

from __future__ import annotations

from torch import Tensor

from models.propagation.rule import BlockKnobs, Observation, Rule


def weighted(activation: Tensor, observation: Observation, _grid: tuple[int, int], _knobs: BlockKnobs) -> Tensor:
    """Activation (C, N) times the class token's attention."""
    return activation * observation.read("class_token")


RULE = Rule(
    weighted,
    BlockKnobs,
    "M' = a * M, a = class-token attention, the mean for the sum over blocks;"
    " TS-CAM (Gao et al., ICCV 2021) and TransCAM's `clsattn`: `released`",
    needs=frozenset({"class_token"}),
    raw=True,
)
