"""What the grid of a CAM lets through: the mIoU of true masks after it, an upper bound of every map.

True masks are averaged onto the cells of each view that the compact profile makes maps of, go back to the size of the
scene the way scores do (`fuse_scores`), and the highest of background and classes labels each pixel. Nothing is
trained.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.maps import fuse_scores
from pipeline.config.cams import CamsKnobs
from pipeline.config.data import ScenesData
from pipeline.config.load import resolve
from pipeline.data.drawing.creatures import CLASSES
from pipeline.data.drawing.scene import draw_scene
from pipeline.data.images import view_size
from pipeline.maps.store import grid_extent
from pipeline.run.pool import in_processes
from pipeline.scoring.scores import Confusion, confusion_matrix, iou, mean
from tools.instrument.bar import Bar, Measured

DRAWINGS, SCENES = (101, 102), 120
STRIDE = 16  # of the compact networks whose maps are CAMs
LEAST = 85
LABELS = len(CLASSES) + 1

Labels = NDArray[np.uint8]


class Bound(NamedTuple):
    """What one drawing gives, in percent: mIoU of each scale alone and of all fused, mean share of foreground."""

    scales: list[float]
    fused: float
    foreground: float


def grid_bars(drawings: Sequence[int], scenes: int) -> list[Bar]:
    """The bar of the grid on so many training scenes of each drawing; for information, single scales and foreground."""
    bounds = {f"drawing {drawing}": bound(drawing, scenes) for drawing in drawings}

    def measured(values: Sequence[float]) -> list[Measured]:
        return [
            Measured(f"{scenes} training scenes of {name}", value) for name, value in zip(bounds, values, strict=True)
        ]

    fused = Bar("1 true masks through the CAM grid, mIoU", LEAST, measured=measured([b.fused for b in bounds.values()]))
    alone = [
        Bar(f"  of scale {scale:g} alone", measured=measured([b.scales[number] for b in bounds.values()]))
        for number, scale in enumerate(compact_cams().scales)
    ]
    share = Bar("  foreground of the true masks, %", measured=measured([b.foreground for b in bounds.values()]))
    return [fused, *alone, share]


@cache
def compact_cams() -> CamsKnobs:
    """The knobs of the maps of the method `cam` in the compact profile on the bundled scenes."""
    return resolve({"method": "cam", "profile": "compact", "data": {"name": "scenes"}}).cams


def bound(drawing: int, scenes: int) -> Bound:
    """Draw training scenes in a pool of processes, and score what the grid leaves of their masks."""
    job, workers = partial(scene_counts, drawing), len(os.sched_getaffinity(0))
    found = in_processes(job, range(scenes), title=f"drawing {drawing}", workers=workers)
    *scales, fused = (100 * mean(iou(confusion)) for confusion in np.sum([counts for counts, _ in found], axis=0))
    return Bound(scales, fused, 100 * float(np.mean([share for _, share in found])))


def scene_counts(drawing: int, index: int) -> tuple[Confusion, float]:
    """Confusion matrices (scales + 1, LABELS, LABELS) of one scene, the last of all scales, and its foreground."""
    _, mask = draw_scene(drawing, "train", index, ScenesData().size)
    labels = through_grid(mask, compact_cams())
    return np.stack([confusion_matrix(mask, one, LABELS) for one in labels]), float(np.mean(mask > 0))


def through_grid(mask: Labels, config: CamsKnobs) -> list[Labels]:
    """What the grids of the views leave of a mask: the labels of each scale alone, then those of all scales fused.

    Args:
        mask: (H, W) uint8 labels below `LABELS`.
        config: scales and size of the views.
    """
    size = (mask.shape[0], mask.shape[1])
    channels = functional.one_hot(torch.from_numpy(mask).long(), LABELS).movedim(2, 0).double()
    maps: list[Tensor] = []
    extents: list[tuple[int, int]] = []
    for scale in config.scales:
        seen = view_size(size, scale, config.long_side, config.square)
        grid = [-(-side // STRIDE) for side in seen]
        extents.append(grid_extent(size, seen, grid, STRIDE))
        rows, columns = (cell_weights(*sides) for sides in zip(grid, extents[-1], size, strict=True))
        maps.append(rows @ channels @ columns.T)
    views = [*([number] for number in range(len(maps))), range(len(maps))]
    fused = (fuse_scores([maps[n] for n in view], size, [extents[n] for n in view]) for view in views)
    return [one.argmax(0).numpy().astype(np.uint8) for one in fused]


def cell_weights(cells: int, extent: int, side: int) -> Tensor:
    """The share (cells, side) float64 of each pixel in the mean of each cell; rows sum to 1.

    Args:
        cells: along one side of the grid.
        extent: pixels that they cover; those beyond the edge count for nothing.
        side: pixels of the photograph.
    """
    edges, pixels = np.linspace(0, extent, cells + 1), np.arange(side)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.maximum(covered, 0)
    return torch.from_numpy(weights / weights.sum(axis=1, keepdims=True))
