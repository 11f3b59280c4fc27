"""From the low-resolution maps of several scales to one map per class at any size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

EPSILON = 1e-5


def fuse_cams(maps: Sequence[Tensor], size: tuple[int, int], stride: int = 1) -> Tensor:
    """Rectify, resize and add the maps of all scales, then divide each class by its maximum.

    Args:
        maps: one (K, h_i, w_i) float32 map per scale, before ReLU, mirror images already merged.
        size: height and width of the result.
        stride: the maps are resized to the next multiple of this and cropped; 1 resizes to `size` itself (PSA), the
            network's stride to what its grid really covers (IRN's `high_res`).

    Returns:
        (K, H, W) float32 in [0, 1]; all zero for a class that is nowhere positive.

    Source: released code of IRN (`step/make_cam.py`); maximum normalisation with 1e-5 as there.
    """
    extent = [side + (-side) % stride for side in size]
    total = torch.zeros(maps[0].shape[0], *size)
    if len(total) == 0:
        return total
    for scale in maps:
        resized = functional.interpolate(scale[None].float().relu(), extent, mode="bilinear", align_corners=False)
        total += resized[0, :, : size[0], : size[1]]
    return total / (total.amax(dim=(1, 2), keepdim=True) + EPSILON)
