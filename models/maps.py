"""From the low-resolution maps of several scales to one map per class at any size, and how maps are resized."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

EPSILON = 1e-5
"""Beside the maxima that maps are divided by, as all released programs have it."""


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, C, h, w) to (B, C, *size), bilinear between pixel centres."""
    return functional.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)


def nearest(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Resize label maps by taking, for each new cell, the pixel under its centre.

    Args:
        labels: (..., H, W) of any type.
        size: new height and width.

    Returns:
        (..., *size); for a whole factor f rows and columns f // 2, f // 2 + f, ...

    Source: AMN reduces labels this way (`released`); resizing by corners would shift them by half a cell.
    """
    rows, columns = (
        (2 * torch.arange(new, device=labels.device) + 1) * old // (2 * new)
        for old, new in zip(labels.shape[-2:], size, strict=True)
    )
    return labels[..., rows[:, None], columns]


def min_max(maps: Tensor) -> Tensor:
    """Shift and stretch every map (B, C, h, w) to [0, 1]; constant maps become 0.

    No gradient flows through the extrema. An absent class is stretched like any other: multiply by the tags after.
    Source: released code of ToCo (`utils/camutils.py`), 1e-5 beside the maximum as there: `released`.
    """
    shifted = maps - maps.detach().amin(dim=(2, 3), keepdim=True)
    return shifted / (shifted.detach().amax(dim=(2, 3), keepdim=True) + EPSILON)


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

    Source: released code of ToCo (`utils/camutils.py`), see `toco.cams.multi_scale_cams`; there mirror images are
    merged after resizing, here before it.
    """
    return min_max(_sum([grid.relu() for grid in maps], size, extents)[None])[0]


def fuse_logits(
    logits: Sequence[Tensor],
    size: tuple[int, int],
    extents: Sequence[tuple[int, int]],
    class_ids: Sequence[int],
    initial: Tensor | None = None,
) -> Tensor:
    """One map for the background and each present class from the logits of several scales.

    The mean over scales goes through softmax over all channels, present or not; then each map is stretched to [0, 1].

    Args:
        logits: one (1+C, h_i, w_i) map per scale, mirror images already merged.
        size: height and width of the result.
        extents: for each scale the height and width that its grid covers, in pixels of the result; the released code
            takes `size` for all.
        class_ids: 1-based ids of the present classes.
        initial: labels (H', W') of any size that the network was trained on, 0 background. With them only the
            foreground and ignored pixels of these labels are stretched and the others keep their probability, so the
            initial labels help to decide (`released`). None stretches everywhere (`reconstructed`).

    Returns:
        (1+K, H, W) float32 in [0, 1]; channel 0 background, channel k class `class_ids[k-1]`.

    Source: `released` AMN code; the constant in the stretching is 1e-5 there too.
    """
    total = torch.stack([place(grid.float(), e, size) for grid, e in zip(logits, extents, strict=True)]).mean(0)
    maps = total.softmax(0)[[0, *class_ids]]
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    stretched = (maps - low) / (high - low + EPSILON)
    return stretched if initial is None else torch.where(nearest(initial, size) != 0, stretched, maps)


def fuse_scores(maps: Sequence[Tensor], size: tuple[int, int], extents: Sequence[tuple[int, int]]) -> Tensor:
    """Place values that compete as they are, and average them over the scales: (K, h_i, w_i) to (K, H, W)."""
    return torch.stack([place(grid, extent, size) for grid, extent in zip(maps, extents, strict=True)]).mean(0)


def _positive_minmax(maps: Sequence[Tensor], size: tuple[int, int], extents: Sequence[tuple[int, int]]) -> Tensor:
    """`fuse_minmax` without its values below 0."""
    return fuse_minmax(maps, size, extents).clamp(min=0)


def mean(maps: Tensor, mirrored: Tensor) -> Tensor:
    """The mean of both images' maps."""
    return (maps + mirrored) / 2


@dataclass(frozen=True)
class Fusion:
    """How the maps of several scales, each of an image and of its mirror image, become one map per class.

    Attributes:
        scales: one (K, h_i, w_i) map per scale, the size (H, W) of the result and the extents of the grids to
            (K, H, W) in [0, 1]; K is at least 1.
        mirrors: the maps of an image and those of its mirror image, turned back, to one map.
        softmax: maps are logits of the background and of all classes, which compete in a softmax (`fuse_logits`)
            before only the present ones are kept.
    """

    scales: Callable[[Sequence[Tensor], tuple[int, int], Sequence[tuple[int, int]]], Tensor]
    mirrors: Callable[[Tensor, Tensor], Tensor] = mean
    softmax: bool = False


FUSIONS: dict[str, Fusion] = {
    "max": Fusion(fuse_cams),
    "minmax": Fusion(_positive_minmax),
    "scores": Fusion(fuse_scores, softmax=True),
    "toco": Fusion(fuse_toco, mirrors=torch.maximum),
}
"""By name. CAM stores keep the position in this table: new ones go to its end."""


def _sum(maps: Sequence[Tensor], size: tuple[int, int], extents: Sequence[tuple[int, int]]) -> Tensor:
    """Maps (K, h_i, w_i) of all scales placed and added, (K, H, W) float32."""
    total = torch.zeros(maps[0].shape[0], *size)
    if len(total):  # no class, nothing to resize
        for grid, extent in zip(maps, extents, strict=True):
            total += place(grid.float(), extent, size)
    return total
