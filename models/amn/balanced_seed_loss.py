"""The balanced seed loss: cross entropy of pixel labels in which background and foreground count alike.

DSRG, AMN and BAO use it with different settings; `SeedLossForm` names what differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from models.labels import IGNORE


@dataclass(frozen=True)
class SeedLossForm:
    """Settings of the balanced seed loss; the defaults are those of AMN and BAO (`released`).

    Attributes:
        scope: where pixels are averaged: over the whole `batch`, or in each `image` with the mean over images on top.
        combine: `mean` or `sum` of the two sides.
        smoothing: share of the target taken from the label and spread evenly over the other channels; in [0, 1).
        foreground_weight: factor of the foreground side; at least 0.
        floor: added to every probability before they are renormalised; at least 0.
        ignore: label of pixels on neither side.

    Raises:
        ValueError: a number is out of its range.
    """

    scope: Literal["batch", "image"] = "batch"
    combine: Literal["mean", "sum"] = "mean"
    smoothing: float = 0.4
    foreground_weight: float = 1.0
    floor: float = 0.0
    ignore: int = IGNORE

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"label smoothing must be in [0, 1), got {self.smoothing}")
        if self.foreground_weight < 0 or self.floor < 0:
            raise ValueError(f"weight and floor must be at least 0, got {self.foreground_weight} and {self.floor}")


AMN_FORM = SeedLossForm()
DSRG_FORM = SeedLossForm(scope="image", combine="sum", smoothing=0.0, floor=1e-4)


class SeedLoss(NamedTuple):
    """The combined loss and its two sides (before weighting), 0-d tensors."""

    total: Tensor
    bg: Tensor
    fg: Tensor


def seed_loss(logits: Tensor, labels: Tensor, form: SeedLossForm = AMN_FORM) -> SeedLoss:
    """Balanced seed loss of logits.

    Args:
        logits: (B, 1+C, h, w), channel 0 the background; half precision is computed in float32.
        labels: (B, h, w) of any integer type; 0 background, 1..C classes, `form.ignore`.
        form: the settings.

    Returns:
        The loss and its sides. A side without pixels is 0 and has no gradient.

    Source: Huang et al., CVPR 2018 (DSRG) and, with label smoothing, Lee et al., CVPR 2022 (AMN): `published`. Scope
    and combination are those of the `released` programs, of which AMN and BAO give NaN for an empty side.
    """
    return balanced_cross_entropy(log_probabilities(logits, form.floor), labels, form)


def log_probabilities(logits: Tensor, floor: float = 0.0) -> Tensor:
    """Log-softmax over channels (dimension 1) in float32 or wider, of probabilities kept off zero by `floor`.

    Source: the floor, 1e-4, is from the `released` DSRG code.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if floor == 0:
        return logits.log_softmax(1)
    raised = logits.softmax(1) + floor
    return (raised / raised.sum(1, keepdim=True)).log()


def balanced_cross_entropy(log_probs: Tensor, labels: Tensor, form: SeedLossForm = AMN_FORM) -> SeedLoss:
    """`seed_loss` of log-probabilities (B, 1+C, h, w); `form.floor` plays no part."""
    labels = labels.long()
    targets = smoothed_targets(labels, log_probs.shape[1], form.smoothing, form.ignore)
    cross_entropy = -(targets * log_probs).sum(1)
    dims = (1, 2) if form.scope == "image" else (0, 1, 2)

    def side(mask: Tensor) -> Tensor:
        total = torch.where(mask, cross_entropy, 0).sum(dims)
        return (total / mask.sum(dims).clamp(min=1)).mean()

    bg, fg = side(labels == 0), side((labels != 0) & (labels != form.ignore))
    total = bg + form.foreground_weight * fg
    return SeedLoss(total / 2 if form.combine == "mean" else total, bg, fg)


def smoothed_targets(labels: Tensor, channels: int, smoothing: float, ignore: int = IGNORE) -> Tensor:
    """Target distribution of every pixel.

    Args:
        labels: (B, h, w) int64; ignored pixels get the background's distribution.
        channels: labels including background; at least 2.
        smoothing: share that the other channels divide among themselves, in [0, 1).
        ignore: label of ignored pixels.

    Returns:
        (B, channels, h, w) float32, 1 - smoothing on the label; sums to 1.

    Raises:
        RuntimeError: a label is neither ignored nor below `channels` (on a GPU a device-side assertion).

    Source: Lee et al., CVPR 2022, with 0.4; `released`.
    """
    known = labels.masked_fill(labels == ignore, 0)[:, None]
    shape = (labels.shape[0], channels, *labels.shape[1:])
    others = torch.full(shape, smoothing / (channels - 1), device=labels.device)
    return others.scatter(1, known, 1 - smoothing)
