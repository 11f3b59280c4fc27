"""How a segmentation network's logits at several scales become one prediction, in bounded memory.

Views keep the network's own grid. Only bands of rows are brought to the size of the photograph, one after the other: a
photograph of 12 megapixels with 200 labels would have 10 GB of probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

BAND = 2**24
"""Values of a band at most, all labels together: 64 MiB of float32."""


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
def view_scores(network: nn.Module, views: Sequence[Tensor], fusion: str = "mean", flip: bool = True) -> list[Tensor]:
    """What the network says of each view, on its own grid.

    Args:
        network: images (N, 3, h, w) to logits (N, labels, h', w').
        views: one normalised image (3, h, w) per scale.
        fusion: a name in `PREDICTIONS`.
        flip: each view is joined by its mirror image.

    Returns:
        For each view (labels, h', w') float32, on the view's device.
    """
    rule, scores = PREDICTIONS[fusion], []
    for view in views:
        logits = network(torch.stack([view, view.flip(2)] if flip else [view])).float()
        values = logits.softmax(1) if rule.softmax == "first" else logits
        merged = rule.mirrors(values[:1], values[1:].flip(3)) if flip else values
        scores.append(merged[0] / rule.shared(len(values), len(views)))
    return scores


@torch.inference_mode()
def bands(scores: Sequence[Tensor], size: tuple[int, int], fusion: str = "mean") -> Iterator[Tensor]:
    """The prediction from several views, a band of rows after the other.

    Args:
        scores: as `view_scores` gives them with this rule.
        size: height and width of the result.
        fusion: a name in `PREDICTIONS`.

    Yields:
        Probabilities (labels, rows, W), from the top; of `max` they need not add up to 1.
    """
    rule, (height, width) = PREDICTIONS[fusion], size
    rows = max(1, BAND // (scores[0].shape[0] * width))

    def placed(values: Tensor, start: int) -> Tensor:
        band = resized_rows(values, height, start, min(start + rows, height))
        resized = functional.interpolate(band[None], (band.shape[1], width), mode="bilinear", align_corners=False)[0]
        return resized.softmax(0) if rule.softmax == "placed" else resized

    for start in range(0, height, rows):
        total = reduce(rule.merge, (placed(values, start) for values in scores))
        yield total.softmax(0) if rule.softmax == "last" else total


def resized_rows(values: Tensor, height: int, start: int, end: int) -> Tensor:
    """Rows `start` to `end` of values (C, h, w) resized to `height` rows, bilinear, without aligned corners."""
    own = values.shape[1]
    where = (torch.arange(start, end, device=values.device) + 0.5) * (own / height) - 0.5
    where = where.clamp(0, own - 1)
    above = where.floor().long()
    share = (where - above)[:, None]
    return torch.lerp(values[:, above], values[:, (above + 1).clamp(max=own - 1)], share)


def predict(
    network: nn.Module, views: Sequence[Tensor], size: tuple[int, int], fusion: str = "mean", flip: bool = True
) -> Tensor:
    """One prediction from several scales: probabilities (labels, H, W); see `view_scores` and `bands`."""
    return torch.cat(list(bands(view_scores(network, views, fusion, flip), size, fusion)), dim=1)
