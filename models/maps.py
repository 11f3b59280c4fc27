"""From the low-resolution maps of several scales to one map per class at any size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from models.toco.cams import min_max

EPSILON = 1e-5


def place(grid: Tensor, extent: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Resize maps bilinearly to the area that their grid covers, and crop that to the photograph.

    Args:
        grid: (K, h, w) float32.
        extent: height and width that the grid covers, in pixels of the result; at least `size`.
        size: height and width of the result.

    Returns:
        (K, H, W).
    """
    resized = functional.interpolate(grid[None], extent, mode="bilinear", align_corners=False)
    return resized[0, :, : size[0], : size[1]]


def fuse_cams(maps: Sequence[Tensor], size: tuple[int, int], extents: Sequence[tuple[int, int]]) -> Tensor:
    """Rectify, place and add the maps of all scales, then divide each class by its maximum.

    Args:
        maps: one (K, h_i, w_i) float32 map per scale, before ReLU, mirror images already merged.
        size: height and width of the result.
        extents: for each scale the height and width that its grid covers, in pixels of the result. The last cells of
            a grid may reach beyond the photograph. PSA takes `size` for all scales, IRN the next multiples of 16.

    Returns:
        (K, H, W) float32 in [0, 1]; all zero for a class that is nowhere positive.

    Source: released code of IRN (`step/make_cam.py`); maximum normalisation with 1e-5 as there.
    """
    total = _sum([grid.relu() for grid in maps], size, extents)
    return total / (total.amax(dim=(1, 2), keepdim=True) + EPSILON)


def fuse_minmax(maps: Sequence[Tensor], size: tuple[int, int], extents: Sequence[tuple[int, int]]) -> Tensor:
    """Place and add the maps of all scales, rectify the sum, then stretch each class from its minimum to its maximum.

    Args:
        maps: one (K, h_i, w_i) float32 map per scale, before ReLU, mirror images already added.
        size: height and width of the result.
        extents: as in `fuse_cams`. TransCAM resizes photographs to squares and takes `size` for all scales.

    Returns:
        (K, H, W) float32 below 1. What is 0 before the stretch ends slightly below 0 (far below for a class whose
        least value is well above 0), and a class that is nowhere positive at -1.

    Source: released code of TransCAM and BAO; both use of 1e-5 and the values below 0 are theirs.
    """
    total = _sum(maps, size, extents).relu()
    least, most = total.amin(dim=(1, 2), keepdim=True), total.amax(dim=(1, 2), keepdim=True)
    total = torch.where(total < least + EPSILON, 0, total)
    return (total - least - EPSILON) / (most - least + EPSILON)


def fuse_toco(maps: Sequence[Tensor], size: tuple[int, int], extents: Sequence[tuple[int, int]]) -> Tensor:
    """Rectify, place and add the maps of all scales, then stretch each class from its minimum to its maximum.

    Args:
        maps: one (K, h_i, w_i) float32 map per scale, before ReLU, the larger of both mirror images' values.
        size: height and width of the result.
        extents: as in `fuse_cams`. ToCo takes `size` for all scales.

    Returns:
        (K, H, W) float32 in [0, 1]; constant maps become 0.

    Source: released code of ToCo (`utils/camutils.py`), see `toco_cams.multi_scale_cams`; there mirror images are
    merged after resizing, here before it.
    """
    return min_max(_sum([grid.relu() for grid in maps], size, extents)[None])[0]


def _sum(maps: Sequence[Tensor], size: tuple[int, int], extents: Sequence[tuple[int, int]]) -> Tensor:
    """Maps (K, h_i, w_i) of all scales placed and added, (K, H, W) float32."""
    total = torch.zeros(maps[0].shape[0], *size)
    if len(total):  # no class, nothing to resize
        for grid, extent in zip(maps, extents, strict=True):
            total += place(grid.float(), extent, size)
    return total
