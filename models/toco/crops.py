"""Local views for class token contrast: where to look, and which views show background only."""

from __future__ import annotations

import torch
from torch import Tensor


def candidates(regions: Tensor, size: int, count: int) -> Tensor:
    """Corners at which a local view may start.

    Args:
        regions: (B, H, W) uint8, see `toco_labels.region_mask`.
        size: side of the views.
        count: how many views will be chosen.

    Returns:
        (B, H - 2m, W - 2m) bool with m = size // 2; cell (y, x) stands for the view whose top left corner is (y, x)
        and whose centre is (y + m, x + m). True where the centre is no object; everywhere if that gives fewer
        than `count`.

    Raises:
        ValueError: the image has no room for `count` views.

    Source: released code of ToCo (`utils/camutils.py`): `released`.
    """
    margin = size // 2
    height, width = regions.shape[1:]
    if max(height - 2 * margin, 0) * max(width - 2 * margin, 0) < count or min(height, width) < size:
        raise ValueError(f"no room for {count} views of {size} pixels in an image of {height}x{width}")
    free = regions[:, margin : height - margin, margin : width - margin] <= 1
    return free | (free.sum(dim=(1, 2), keepdim=True) < count)


def choose_corners(regions: Tensor, size: int, count: int = 8, generator: torch.Generator | None = None) -> Tensor:
    """Draw different views of every image, uniformly among its candidates.

    Arguments and errors as for `candidates`. The same CPU generator gives the same views on every device.

    Returns:
        (B, count, 2) int64 rows and columns of the top left corners.
    """
    allowed = candidates(regions, size, count)
    draws = torch.rand(allowed.shape, generator=generator, device=generator.device if generator else None)
    flat = draws.to(allowed.device).masked_fill(~allowed, -1).flatten(1).topk(count, dim=1).indices
    width = allowed.shape[2]
    return torch.stack([flat // width, flat % width], dim=2)


def cut_crops(images: Tensor, corners: Tensor, size: int) -> Tensor:
    """Images (B, C, H, W) and corners (B, n, 2) to views (B, n, C, size, size)."""
    windows = images.unfold(2, size, 1).unfold(3, size, 1)
    rows = torch.arange(len(images), device=images.device)[:, None]
    return windows[rows, :, corners[..., 0], corners[..., 1]]


def crop_flags(regions: Tensor, corners: Tensor, size: int, limit: float = 0.2) -> Tensor:
    """Which views show enough of an object to be positive, (B, n) bool: the mean of the mask exceeds `limit`.

    Source: released code of ToCo (`utils/camutils.py`), where a sure object counts twice: `released`.
    """
    return cut_crops(regions[:, None].float(), corners, size).mean(dim=(2, 3, 4)) > limit


def mirror_views(
    first: Tensor, local: Tensor, boxes: Tensor, generator: torch.Generator | None = None, flip_bug: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Mirror half of the images, with the picture that local views are cut from and with the valid box.

    Args:
        first: (B, C, H, W) the network's view.
        local: (B, C, H, W) another look at the same crop, from which local views are cut.
        boxes: (B, 4), see `toco_labels.inside_boxes`.
        generator: decides which; on the CPU.
        flip_bug: compatibility with the released loader: the two are mirrored independently and the box not at
            all, so that half of the local views come from the mirrored place.

    Returns:
        The three, mirrored.

    Source: one shared flip is `reconstructed` (DuPL's VOC loader also drops the second one).
    """
    flips = torch.rand(2, len(first), generator=generator) < 0.5
    chosen = flips.to(first.device)
    view = torch.where(chosen[0, :, None, None, None], first.flip(3), first)
    if flip_bug:
        return view, torch.where(chosen[1, :, None, None, None], local.flip(3), local), boxes
    width = first.shape[3]
    turned = torch.stack([boxes[:, 0], boxes[:, 1], width - boxes[:, 3], width - boxes[:, 2]], dim=1)
    boxes = torch.where(chosen[0, :, None].to(boxes.device), turned, boxes)
    return view, torch.where(chosen[0, :, None, None, None], local.flip(3), local), boxes
