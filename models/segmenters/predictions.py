"""How a segmentation network's logits at several scales become one prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Prediction(NamedTuple):
    """A rule that merges views of one photograph.

    Attributes:
        softmax: when logits become probabilities: `first`, `placed` (once a scale has the result's size), `last`.
        merge: the values of two scales to one.
        shared: what each scale's sum of mirror images is divided by, given their number and that of the scales.
        mirrors: the values of both mirror images to one.
    """

    softmax: Literal["first", "placed", "last"]
    merge: Callable[[Tensor, Tensor], Tensor]
    shared: Callable[[int, int], int]
    mirrors: Callable[[Tensor, Tensor], Tensor] = torch.add


PREDICTIONS = {
    "mean": Prediction("first", torch.add, lambda mirrors, scales: mirrors * scales),
    "logits": Prediction("last", torch.add, lambda mirrors, scales: mirrors * scales),
    "max": Prediction("placed", torch.maximum, lambda mirrors, scales: mirrors),
    "toco": Prediction("last", torch.maximum, lambda mirrors, scales: 1),
    "toco_coco": Prediction("last", torch.add, lambda mirrors, scales: 1, torch.maximum),
}
"""By the names of the knob `predict.fusion`, which says what each does and whose it is."""


@torch.inference_mode()
def predict(
    network: nn.Module, views: Sequence[Tensor], size: tuple[int, int], fusion: str = "mean", flip: bool = True
) -> Tensor:
    """One prediction from several scales, each with its mirror image where `flip` says so.

    Args:
        network: images (N, 3, h, w) to logits (N, labels, h, w).
        views: one normalised image (3, h, w) per scale.
        size: height and width of the result.
        fusion: a name in `PREDICTIONS`.
        flip: each view is joined by its mirror image.

    Returns:
        Probabilities (labels, H, W) on the views' device; of `max` they need not add up to 1.
    """
    rule = PREDICTIONS[fusion]

    def placed(view: Tensor) -> Tensor:
        logits = network(torch.stack([view, view.flip(2)] if flip else [view])).float()
        values = logits.softmax(1) if rule.softmax == "first" else logits
        merged = rule.mirrors(values[:1], values[1:].flip(3)) if flip else values
        merged = merged / rule.shared(len(values), len(views))
        resized = functional.interpolate(merged, size, mode="bilinear", align_corners=False)[0]
        return resized.softmax(0) if rule.softmax == "placed" else resized

    total = reduce(rule.merge, map(placed, views))
    return total.softmax(0) if rule.softmax == "last" else total
