"""The balanced seed loss: cross entropy of pixel labels in which background and foreground count alike."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from models.amn.knobs import SeedLossKnobs
from models.labels import IGNORE


class SeedLoss(NamedTuple):
    """The combined loss and its two sides (before weighting), 0-d tensors."""

    total: Tensor
    bg: Tensor
    fg: Tensor


def balanced_seed_loss(logits: Tensor, labels: Tensor, knobs: SeedLossKnobs = SeedLossKnobs()) -> SeedLoss:
    """Half the mean cross entropy over background pixels plus half that over foreground pixels, with label smoothing.

    Args:
        logits: (B, 1+C, h, w), channel 0 the background; half precision is computed in float32.
        labels: (B, h, w) of any integer type; 0 background, 1..C classes, 255 ignored.
        knobs: label smoothing, and the weight of the foreground.

    Returns:
        The loss and its sides, means over the whole batch. A side without pixels is 0 and has no gradient.

    Source: Huang et al., CVPR 2018 (DSRG) and, with label smoothing, Lee et al., CVPR 2022 (AMN): `published`. Means
    over the batch are those of the `released` programs of AMN and BAO, which give NaN for an empty side.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    labels = labels.long()
    targets = smoothed_targets(labels, logits.shape[1], knobs.label_smoothing)
    cross_entropy = -(targets * logits.log_softmax(1)).sum(1)

    def side(mask: Tensor) -> Tensor:
        return torch.where(mask, cross_entropy, 0).sum() / mask.sum().clamp(min=1)

    bg, fg = side(labels == 0), side((labels != 0) & (labels != IGNORE))
    return SeedLoss((bg + knobs.foreground_weight * fg) / 2, bg, fg)


def smoothed_targets(labels: Tensor, channels: int, smoothing: float) -> Tensor:
    """Target distribution of every pixel.

    Args:
        labels: (B, h, w) int64; ignored pixels get the background's distribution.
        channels: labels including background; at least 2.
        smoothing: share that the other channels divide among themselves, in [0, 1).

    Returns:
        (B, channels, h, w) float32, 1 - smoothing on the label; sums to 1.

    Raises:
        RuntimeError: a label is neither ignored nor below `channels` (on a GPU a device-side assertion).

    Source: Lee et al., CVPR 2022, with 0.4; `released`.
    """
    known = labels.masked_fill(labels == IGNORE, 0)[:, None]
    shape = (labels.shape[0], channels, *labels.shape[1:])
    others = torch.full(shape, smoothing / (channels - 1), device=labels.device)
    return others.scatter(1, known, 1 - smoothing)
