"""Personalised PageRank on the plain attention, in closed form."""

from __future__ import annotations

from pydantic import model_validator
from torch import Tensor

from models.knobs import Count, Share, knob
from models.propagation.diffusion import DIRECTION, SWEEPS, Direction, restarted, transition
from models.propagation.rule import BlockKnobs, Observation, Rule


class Knobs(BlockKnobs):
    """The knobs of the walk."""

    direction: Direction = knob("pull", DIRECTION, "reconstructed")
    sinkhorn_iters: Count = knob(3, SWEEPS, "released, CLIP-ES")
    alpha: Share = knob(0.9, "share that walks on; the rest restarts; below 1", "reconstructed")

    @model_validator(mode="after")
    def _restarts(self) -> Knobs:
        if self.alpha == 1:
            raise ValueError("a walk that never restarts has no closed form; take alpha below 1")
        return self


def walked(activation: Tensor, observation: Observation, _grid: tuple[int, int], knobs: Knobs) -> Tensor:
    """Where the activation (C, N) is in the limit."""
    step = transition(observation.read("patches"), knobs.direction, knobs.sinkhorn_iters)
    return restarted(activation, step, knobs.alpha)


RULE = Rule(
    walked,
    Knobs,
    "M' = (1 - alpha) (I - alpha T)^-1 M, T = normalised A; personalised PageRank: `reconstructed`",
    needs=frozenset({"patches"}),
)
