"""Pairs of neighbouring grid cells: which exist, along which path, and what their labels say.

Everything about pairs is kept in one *stencil layout*: a tensor (..., n_offsets, h, w) that holds at
[o, y, x] the pair of the source cell (y, x) and the target cell (y, x) + offset o. Entries without a pair
are zero (False). Pairs are reached through shifted views of the grid, so no index arrays are needed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.labels import IGNORE

MAX_LABELS = 255  # labels from here on take part in no pair

Border = Literal["psa", "full"]
Window = tuple[slice, slice]


@lru_cache
def half_plane_offsets(radius: int) -> tuple[tuple[int, int], ...]:
    """Offsets (dy, dx) nearer than `radius`, each unordered pair once.

    Args:
        radius: pairs with dy^2 + dx^2 < radius^2 are kept; at least 1.

    Returns:
        (0, 1..radius-1), then for each dy = 1..radius-1 every dx in ascending order; 34 offsets for radius 5,
        152 for radius 10.

    Raises:
        ValueError: if the radius is below 1.

    Source: Ahn & Kwak, CVPR 2018, section 3.2 (the set) and the released PSA code (the order): `released`.
    """
    if radius < 1:
        raise ValueError(f"radius must be at least 1, got {radius}")
    side = range(-radius + 1, radius)
    right = [(0, dx) for dx in range(1, radius)]
    below = [(dy, dx) for dy in range(1, radius) for dx in side if dy * dy + dx * dx < radius * radius]
    return tuple(right + below)


@lru_cache
def path_cells(dy: int, dx: int) -> tuple[tuple[int, int], ...]:
    """Cells of the thick line from (0, 0) to (dy, dx), both ends included.

    A cell of the rectangle spanned by the two ends belongs to the path if it lies nearer than 1 to the
    segment; (0, 1) has 2 cells, (1, 1) has 4.

    Source: released IRN code (the paper only says "along the line"): `released`.
    """
    rows = range(min(0, dy), max(0, dy) + 1)
    columns = range(min(0, dx), max(0, dx) + 1)
    length = dy * dy + dx * dx
    return tuple((y, x) for y in rows for x in columns if (dy * x - dx * y) ** 2 < max(length, 1))


@dataclass(frozen=True)
class Neighbourhood:
    """The pairs of a grid: all offsets within a radius, under a border rule.

    Attributes:
        radius: see `half_plane_offsets`.
        border: `psa` (`released`) takes as sources only cells with row < h-(radius-1) and
            radius-1 <= column < w-(radius-1), so that every offset has a target; a few border cells then have
            no pair at all and the graph is not mirror-symmetric. `full` (`published`: all pairs within the
            radius) keeps every pair whose two cells lie on the grid.
    """

    radius: int
    border: Border = "psa"

    @cached_property
    def offsets(self) -> tuple[tuple[int, int], ...]:
        """The offsets, in stencil order."""
        return half_plane_offsets(self.radius)

    def windows(self, h: int, w: int) -> Iterator[tuple[Window, Window]]:
        """For each offset the (rows, columns) slices of the sources and of the targets on an (h, w) grid."""
        margin = self.radius - 1
        for dy, dx in self.offsets:
            if self.border == "psa":
                bottom, left, right = h - margin, margin, w - margin
            else:
                bottom, left, right = h - dy, max(0, -dx), w - max(0, dx)
            if bottom <= 0 or right <= left:
                yield _EMPTY, _EMPTY
            else:
                source = slice(0, bottom), slice(left, right)
                yield source, shift(source, dy, dx)


_EMPTY: Window = (slice(0, 0), slice(0, 0))


def shift(window: Window, dy: int, dx: int) -> Window:
    """The window moved by (dy, dx); an empty window stays where it is."""
    rows, columns = window
    if rows.stop == rows.start or columns.stop == columns.start:
        return window
    return slice(rows.start + dy, rows.stop + dy), slice(columns.start + dx, columns.stop + dx)


class PairMasks(NamedTuple):
    """Which pairs to pull together and which apart; bool (B, n_offsets, h, w) each."""

    bg_pos: Tensor
    fg_pos: Tensor
    neg: Tensor


def pair_masks(label: Tensor, hood: Neighbourhood, first_ignored: int = IGNORE) -> PairMasks:
    """Sort the pairs of a label map into background-positive, foreground-positive and negative ones.

    Args:
        label: (B, h, w) uint8 on any device; 0 background, 1.. classes.
        hood: the pairs to look at.
        first_ignored: labels from here on take part in no pair (255 in PSA; the number of classes, 21, in
            IRN).

    Returns:
        `bg_pos` both 0, `fg_pos` equal and not 0, `neg` different; both labels valid in all three.

    Source: Ahn & Kwak, CVPR 2018, section 3.2 and eq. 5; `released` = `published`.
    """
    batch, h, w = label.shape
    masks = label.new_zeros((3, batch, len(hood.offsets), h, w), dtype=torch.bool)
    valid = label < first_ignored
    for o, (source, target) in enumerate(hood.windows(h, w)):
        here, there = label[:, *source], label[:, *target]
        both = valid[:, *source] & valid[:, *target]
        same = (here == there) & both
        masks[0, :, o, *source] = same & (here == 0)
        masks[1, :, o, *source] = same & (here != 0)
        masks[2, :, o, *source] = both & ~same
    return PairMasks(*masks)


def affinity_label(low: Tensor, high: Tensor, pool: int = 8) -> Tensor:
    """Confident labels from two stacks of soft label maps with a strong and a weak background.

    Args:
        low: (..., K+1, pool*h, pool*w) float in [0, 1], channel 0 the background raised to the low power,
            i.e. strong; zeros mark padding.
        high: the same with the high power, i.e. a weak background.
        pool: side of the averaged blocks.

    Returns:
        (..., h, w) uint8: the winning channel where it is a foreground class even with the strong background,
        0 where the background wins even when weak, 255 elsewhere and on padding.

    Source: Ahn & Kwak, CVPR 2018, section 3.2; pooling and padding rule from the released PSA code:
    `released`.
    """
    low, high = _mean_pool(low, pool), _mean_pool(high, pool)
    foreground = low.argmax(-3)
    label = torch.where(foreground == 0, IGNORE, foreground)
    label = torch.where(high.argmax(-3) == 0, 0, label)
    padding = torch.maximum(low.amax(-3), high.amax(-3)) < 1e-5
    return torch.where(padding, IGNORE, label).to(torch.uint8)


def _mean_pool(maps: Tensor, pool: int) -> Tensor:
    """(..., C, pool*h, pool*w) -> (..., C, h, w)."""
    pooled = F.avg_pool2d(maps.flatten(0, -4) if maps.dim() > 4 else maps, pool)
    return pooled.reshape(*maps.shape[:-2], *pooled.shape[-2:])


def reduce_label(label: Tensor, factor: int = 4) -> Tensor:
    """Nearest reduction of a label map: rows and columns factor//2, factor//2 + factor, ...

    Args:
        label: (..., H, W) of any integer type.
        factor: the reduction.

    Returns:
        (..., h, w), h = (H - factor//2 - 1) // factor + 1.

    Source: released IRN code: `released`.
    """
    start = factor // 2
    return label[..., start::factor, start::factor].contiguous()
