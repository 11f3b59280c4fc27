"""From the low-resolution maps of several scales to one map per class at any size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

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
    total = torch.zeros(maps[0].shape[0], *size)
    if len(total) == 0:
        return total
    for grid, extent in zip(maps, extents, strict=True):
        total += place(grid.float().relu(), extent, size)
    return total / (total.amax(dim=(1, 2), keepdim=True) + EPSILON)
