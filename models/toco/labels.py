"""From class activation maps to the labels that ToCo learns from.

Maps are in [0, 1]; `tags` (B, K) of 0 and 1 say which classes an image has. Labels are uint8: 0 background, k + 1
class k, 255 undecided. A score above the `high` threshold makes a class, one up to the `low` threshold background.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.labels import IGNORE
from models.maps import resize
from models.refine.par import PAR, PUBLISHED

Threshold = float | Tensor
"""One number, or a tensor (B,) with one for each image."""


def cam_labels(cams: Tensor, tags: Tensor, low: Threshold, high: Threshold, inside: Tensor | None = None) -> Tensor:
    """Labels to learn from: class where the best score exceeds `high`, 0 where it is at most `low`, 255 between.

    Args:
        cams: (B, K, H, W) float in [0, 1], K at most 254.
        tags: (B, K).
        low: threshold of the background; equality belongs to the lower side.
        high: threshold of classes; likewise.
        inside: (B, H, W) bool, see `inside_boxes`; 255 where False.

    Returns:
        (B, H, W) uint8. An image without tags is background.

    Raises:
        ValueError: more classes than labels.

    Source: released code of ToCo (`utils/camutils.py`): `released`.
    """
    score, label = _best(cams, tags)
    label = label.masked_fill(score <= _per_image(high, score), IGNORE)
    label = label.masked_fill(score <= _per_image(low, score), 0)
    return label if inside is None else label.masked_fill(~inside, IGNORE)


def region_mask(cams: Tensor, tags: Tensor, low: Threshold, high: Threshold) -> Tensor:
    """Where local views are worth a look: 0 background (score <= low), 1 uncertain, 2 object (score >= high).

    Arguments and source as for `cam_labels`, but here equality with `high` belongs to the upper side: `released`.

    Returns:
        (B, H, W) uint8.
    """
    score, _ = _best(cams, tags)
    mask = (score > _per_image(low, score)).to(torch.uint8)
    return mask.masked_fill(score >= _per_image(high, score), 2)


def pair_labels(labels: Tensor) -> Tensor:
    """Which pairs of cells belong together.

    Args:
        labels: (B, h, w) uint8.

    Returns:
        (B, h * w, h * w) uint8, symmetric: 1 equal labels, 0 different ones, 255 if either is 255 or for a cell
        with itself.

    Source: released code of ToCo (`utils/camutils.py`): `released`.
    """
    flat = labels.flatten(1)
    pairs = (flat[:, :, None] == flat[:, None]).to(torch.uint8)
    ignored = flat == IGNORE
    alone = torch.eye(flat.shape[1], dtype=torch.bool, device=labels.device)
    return pairs.masked_fill_(ignored[:, :, None] | ignored[:, None] | alone, IGNORE)


def refined_labels(
    pixels: Tensor,
    cams: Tensor,
    tags: Tensor,
    low: Threshold,
    high: Threshold,
    boxes: Tensor,
    par: PAR = PUBLISHED,
    reduction: int = 2,
) -> Tensor:
    """Labels for the decoder: maps against a weak and a strong background, both refined by PAR, where they agree.

    The whole batch is refined in one call: both stacks share one affinity, and only as many channels are kept as
    the image with most classes needs (equal to refining image by image: an absent class never wins).

    Args:
        pixels: (B, 3, H, W) the photographs in [0, 1], see `denormalised`.
        cams: (B, K, H, W) float in [0, 1].
        tags: (B, K).
        low: score of the weak background.
        high: score of the strong background.
        boxes: (B, 4) valid rows and columns, see `inside_boxes`.
        par: the refinement.
        reduction: refinement takes place at the image size divided by this.

    Returns:
        (B, H, W) uint8: the class that wins against the strong background; 0 where even the weak one wins; else 255.

    Source: released code of ToCo (`utils/camutils.py`): `released`.
    """
    size = pixels.shape[2:]
    small = [side // reduction for side in size]
    count = max(1, int((tags > 0).sum(dim=1).amax()))
    present, order = (tags > 0).sort(dim=1, descending=True, stable=True)
    present, order = present[:, :count], order[:, :count]
    chosen = resize(cams.gather(1, order[:, :, None, None].expand(-1, -1, *size)), small)
    stacks = [
        _competing(chosen, present, _per_image(background, pixels).expand(len(cams), 1, *small))
        for background in (high, low)
    ]
    refined = par.refine(resize(pixels, small), torch.cat(stacks, dim=1))
    classes = torch.nn.functional.pad(order + 1, (1, 0)).to(torch.uint8)
    strict, loose = (
        classes.gather(1, resize(stack, size).argmax(dim=1).flatten(1)).unflatten(1, size)
        for stack in refined.chunk(2, dim=1)
    )
    label = torch.where((strict == 0) & (loose > 0), IGNORE, strict)
    return label.masked_fill(~inside_boxes(boxes, size), IGNORE)


def _competing(maps: Tensor, present: Tensor, background: Tensor) -> Tensor:
    """Softmax (B, 1 + P, h, w) over the background and the present ones among the maps (B, P, h, w)."""
    absent = ~present[:, :, None, None]
    return torch.cat([background, maps.masked_fill(absent, -torch.inf)], dim=1).softmax(dim=1)


def inside_boxes(boxes: Tensor, size: Sequence[int], frame: Sequence[int] | None = None) -> Tensor:
    """Which cells have their centre in the valid part of the image.

    Args:
        boxes: (B, 4) first row, end of rows, first column, end of columns; ends exclusive.
        size: height and width of the grid.
        frame: height and width of the image that the boxes speak of; None for the grid itself.

    Returns:
        (B, *size) bool.
    """

    def between(start: Tensor, end: Tensor, cells: int, extent: int) -> Tensor:
        centres = (torch.arange(cells, device=boxes.device) + 0.5) * (extent / cells)
        return (centres >= start[:, None]) & (centres < end[:, None])

    height, width = frame or size
    rows = between(boxes[:, 0], boxes[:, 1], size[0], height)
    columns = between(boxes[:, 2], boxes[:, 3], size[1], width)
    return rows[:, :, None] & columns[:, None]


def class_thresholds(values: Tensor, tags: Tensor) -> Tensor:
    """One threshold (B,) for each image: the highest among those (K,) of its classes; the lowest of all without any.

    Source: DuPL (Wu et al., CVPR 2024), whose end thresholds differ by class: `released`.
    """
    return torch.where(tags > 0, values, values.amin()).amax(dim=1)


def denormalised(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The photographs behind normalised images (B, 3, H, W), in [0, 1], in whole steps of 1/255.

    Values are truncated, not rounded, which darkens some pixels by one step: `released` code of ToCo.
    """
    scale, shift = (images.new_tensor([value * 255 for value in values])[:, None, None] for values in (std, mean))
    return (images * scale + shift).clamp(0, 255).floor() / 255


def _best(cams: Tensor, tags: Tensor) -> tuple[Tensor, Tensor]:
    """Highest score (B, H, W) among an image's classes, and that class's label (B, H, W) uint8."""
    if cams.shape[1] >= IGNORE:
        raise ValueError(f"at most {IGNORE - 1} classes fit into 8-bit labels, got {cams.shape[1]}")
    score, index = (cams * tags.to(cams)[:, :, None, None]).max(dim=1)
    return score, (index + 1).to(torch.uint8)


def _per_image(threshold: Threshold, like: Tensor) -> Tensor:
    """A threshold as a float tensor that spreads over maps (B, ...)."""
    return torch.as_tensor(threshold).to(like).reshape(-1, *[1] * (like.dim() - 1))
