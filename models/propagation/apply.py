"""Applying rules: what they read is accumulated while the network runs, then the activation of each view moves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor

from models.networks.attention import AttentionRollout, AttentionSum, Observer
from models.propagation.rule import Need, Observation, Rule, RuleKnobs

K = TypeVar("K", bound=RuleKnobs)


class Observed:
    """What some rules need of the attention of one forward pass, accumulated while the network runs.

    Rules with the same blocks share one buffer; nothing is accumulated that no rule reads.
    """

    def __init__(self, needs: Iterable[tuple[frozenset[Need], range]], tokens: int) -> None:
        """`needs`: of each rule, with the blocks that it reads; `tokens`: class tokens before the patch tokens."""
        self.tokens = tokens
        self.sums: dict[range, AttentionSum] = {}
        self.rollout: AttentionRollout | None = None
        for need, blocks in needs:
            if need & {"patches", "class_token"}:
                self.sums.setdefault(blocks, AttentionSum(blocks))
            if "rollout" in need:
                self.rollout = self.rollout or AttentionRollout()

    @property
    def observers(self) -> list[Observer]:
        """What the network calls for each block."""
        return [*self.sums.values(), *([self.rollout] if self.rollout else [])]

    def observation(self, view: int, blocks: range) -> Observation:
        """What a rule on these blocks reads of one view of the batch."""
        mean = self.sums[blocks].mean(view) if blocks in self.sums else None
        walked = self.rollout.product[view] if self.rollout and self.rollout.product is not None else None
        first = self.tokens
        return Observation(
            patches=None if mean is None else mean[first:, first:],
            class_token=None if mean is None or not first else mean[:first, first:].mean(0),
            rollout=None if walked is None else walked[first:, first:],
        )


@torch.no_grad()
def propagate(rule: Rule[K], activation: Tensor, observation: Observation, grid: tuple[int, int], knobs: K) -> Tensor:
    """Propagate the class activation of one view.

    Args:
        rule: from `models.propagation.rules`.
        activation: (C, N) floating point, before ReLU, one row for each class that is present; C = 0 is allowed.
        observation: what the rule needs, on the activation's device.
        grid: (h, w) with h * w = N, tokens in row order.
        knobs: the rule's.

    Returns:
        (C, N) float32, computed in float32 even under autocast. Neither rectified at the end nor min-max normalised:
        the caller first adds up views and scales.

    Raises:
        ValueError: the shapes do not fit, or the observation lacks a part.
    """
    if activation.dim() != 2 or activation.shape[1] != grid[0] * grid[1]:
        raise ValueError(f"activation of shape {tuple(activation.shape)} does not fit a grid of {grid}")
    activation = activation.float()
    with torch.autocast(activation.device.type, enabled=False):
        return rule.formula(activation if rule.raw else rectified(activation), observation, grid, knobs)


def rectified(activation: Tensor) -> Tensor:
    """ReLU, then each class divided by its maximum: (C, N) in [0, 1], all zero for a class that is nowhere positive."""
    positive = activation.relu()
    return positive / positive.amax(1, keepdim=True).clamp_min(torch.finfo(positive.dtype).tiny)
