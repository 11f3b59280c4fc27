"""Polygons in place of pixels: YOLO's text files and LabelMe's JSON, which know nothing else that can be edited.

A polygon runs through the centres of a part's outermost pixels, so that a reader who fills it and its border gets the
pixels back. A hole is joined to the outline by a cut there and back. The cut is drawn one pixel wide: where
it crosses pixels of others, these are lost. How many is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.spatial import KDTree

from models.labels import IGNORE
from pipeline.run.files import write_text
from tools.export.index_masks import lines
from tools.export.labelled import Labelled, Labels, Part, copy_photograph, parts, write_compact

Points = NDArray[np.int32]
FEWEST = 3
"""Points that a polygon has in either format."""


def write_yolo(exported: Labelled, folder: Path) -> str:
    """`data.yaml`, `images/<split>/<id>.*` and `labels/<split>/<id>.txt`; class k of a mask is k - 1 here.

    Photographs are copied, since YOLO looks for labels beside a folder called `images`. It wants both splits: where one
    has no masks, the other stands for it. Returns what is lost.
    """
    loss = Loss()
    for split in exported.splits():
        for record, labels in exported.masks(split):
            copy_photograph(exported.root, record, folder / "images" / split)
            outlined = [(part.label, outline(part)) for part in parts(labels) if part.label != IGNORE]
            loss.count(np.where(labels == IGNORE, 0, labels), outlined)
            rows = [yolo_row(label, points, record.size) for label, points in outlined]
            write_text(folder / "labels" / split / f"{record.id}.txt", lines(rows))
    names = dict(enumerate(exported.manifest.classes))
    splits = exported.splits()
    listing = {"train": f"images/{splits[0]}", "val": f"images/{splits[-1]}", "names": names}
    write_text(folder / "data.yaml", yaml.safe_dump(listing, allow_unicode=True, sort_keys=False))
    return str(loss)


def write_labelme(exported: Labelled, folder: Path) -> str:
    """`<id>.json` beside a copy of each photograph, and `labels.txt`. Returns what is lost."""
    loss = Loss()
    for record, labels in exported.masks():
        outlined = [(part.label, outline(part)) for part in parts(labels)]
        loss.count(labels, outlined)
        shapes = [
            {"label": exported.names[label], "points": points.tolist(), "shape_type": "polygon", "flags": {}}
            for label, points in outlined
        ]
        name = copy_photograph(exported.root, record, folder)
        size = {"imageHeight": record.height, "imageWidth": record.width}
        content: dict[str, Any] = {
            "version": "5.0.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": name,
            "imageData": None,
            **size,
        }
        write_compact(folder / f"{record.id}.json", content)
    write_text(folder / "labels.txt", lines([exported.names[IGNORE], *exported.manifest.classes]))
    return str(loss)


def yolo_row(label: int, points: Points, size: tuple[int, int]) -> str:
    """A line of YOLO's labels: the class from 0 on, then x and y of every point, as shares of width and height."""
    shares = (points + 0.25) / (size[1], size[0])  # readers round or cut to whole pixels, so a quarter suits both
    return " ".join([str(label - 1), *(f"{value:.7g}" for value in shares.ravel())])


def outline(part: Part) -> Points:
    """One polygon (N, 2) of a part, x before y: its outline, with cuts to its holes; at least three points."""
    found, _ = cv2.findContours(
        part.pixels.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(part.left, part.top)
    )
    outer, *holes = (contour[:, 0].astype(np.int32) for contour in found)
    for hole in holes:
        outer = joined(outer, hole)
    return np.concatenate([outer, np.repeat(outer[-1:], max(0, FEWEST - len(outer)), axis=0)])


def joined(outer: Points, hole: Points) -> Points:
    """An outline that goes to a hole where the two are nearest, around it, and back."""
    distances, nearest = KDTree(outer).query(hole)
    there = int(distances.argmin())
    here = int(nearest[there])
    around = np.roll(hole, -there, axis=0)
    return np.concatenate([outer[: here + 1], around, around[:1], outer[here:]])


class Loss:
    """How many pixels are others when polygons are drawn in their order."""

    def __init__(self) -> None:
        self.pixels = self.changed = 0

    def count(self, labels: Labels, outlined: Sequence[tuple[int, Points]]) -> None:
        """Add a mask (H, W) and its polygons."""
        drawn = np.zeros_like(labels)
        for label, points in outlined:
            cv2.fillPoly(drawn, [points], label)
        self.pixels += int((labels > 0).sum())
        self.changed += int((drawn != labels).sum())

    def __str__(self) -> str:
        share = 100 * self.changed / max(1, self.pixels)
        return f"polygons, drawn again, differ in {self.changed} pixels, {share:.2g} % of those of classes"
