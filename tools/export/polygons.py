"""Polygons in place of pixels: YOLO's text files and LabelMe's JSON, which know nothing else that can be edited.

A polygon runs through the centres of a part's outermost pixels, so that a reader who fills it and its border gets the
pixels back. A hole is joined to the outline by a cut there and back, through pixels of the part alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from models.labels import IGNORE
from pipeline.run.files import write_text
from tools.export.index_masks import lines
from tools.export.labelled import Labelled, Part, copy_photograph, parts, write_compact

Points = NDArray[np.int32]
FEWEST = 3
"""Points that a polygon has in either format."""


def write_yolo(exported: Labelled, folder: Path) -> None:
    """`data.yaml`, `images/<split>/<id>.*` and `labels/<split>/<id>.txt`; class k of a mask is k - 1 here.

    Photographs are copied, since YOLO looks for labels beside a folder called `images`. It wants both splits: where one
    has no masks, the other stands for it.
    """
    for split in exported.splits():
        for record, labels in exported.masks(split):
            copy_photograph(exported.root, record, folder / "images" / split)
            rows = [yolo_row(part, record.size) for part in parts(labels) if part.label != IGNORE]
            write_text(folder / "labels" / split / f"{record.id}.txt", lines(rows))
    names = dict(enumerate(exported.manifest.classes))
    splits = exported.splits()
    listing = {"train": f"images/{splits[0]}", "val": f"images/{splits[-1]}", "names": names}
    write_text(folder / "data.yaml", yaml.safe_dump(listing, allow_unicode=True, sort_keys=False))


def write_labelme(exported: Labelled, folder: Path) -> None:
    """`<id>.json` beside a copy of each photograph, and `labels.txt`."""
    for record, labels in exported.masks():
        shapes = [
            {
                "label": exported.names[part.label],
                "points": outline(part).tolist(),
                "shape_type": "polygon",
                "flags": {},
            }
            for part in parts(labels)
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


def yolo_row(part: Part, size: tuple[int, int]) -> str:
    """A line of YOLO's labels: the class from 0 on, then x and y of every point, as shares of width and height.

    Readers round or cut to whole pixels; a quarter of a pixel more suits both.
    """
    shares = (outline(part) + 0.25) / np.array(size[::-1])
    return " ".join([str(part.label - 1), *(f"{value:.7g}" for value in shares.ravel())])


def outline(part: Part) -> Points:
    """One polygon (N, 2) of a part, x before y: its outline, with a cut to each hole; at least three points."""
    found, _ = cv2.findContours(part.pixels.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    outer, *holes = (contour[:, 0].astype(np.int32) for contour in found)
    corners = straightened(joined(outer, holes, part.pixels.shape))
    padded = np.concatenate([corners, np.repeat(corners[-1:], max(0, FEWEST - len(corners)), axis=0)])
    return padded + np.array([part.left, part.top], dtype=np.int32)


def joined(outer: Points, holes: list[Points], size: tuple[int, ...]) -> Points:
    """One closed line through an outline and around its holes, all given pixel by pixel.

    From the leftmost pixel of a hole's border a cut goes left, and back, to the next border. What lies between belongs
    to the part, and that border is the outline or that of a hole further left, which is joined already.
    """
    points = [outer]
    following: list[int] = np.roll(np.arange(len(outer)), -1).tolist()
    node = np.full(size, -1)  # of the line, at a pixel
    node[outer[:, 1], outer[:, 0]] = np.arange(len(outer))
    turned = [np.roll(hole, -int(np.lexsort(hole.T[::-1])[0]), axis=0) for hole in holes]  # leftmost first
    for hole in sorted(turned, key=lambda hole: tuple(hole[0])):
        x, y = hole[0]
        near = np.flatnonzero(node[y, : x + 1] >= 0)[-1]
        start, there = len(following), int(node[y, near])
        points.append(np.concatenate([hole, hole[:1], [[near, y]]]))
        following += [*range(start + 1, start + len(hole) + 2), following[there]]
        following[there] = start
        node[hole[:, 1], hole[:, 0]] = np.arange(start, start + len(hole))
    order, at = [0], following[0]
    while at != 0:
        order.append(at)
        at = following[at]
    return np.concatenate(points)[order].astype(np.int32)


def straightened(line: Points) -> Points:
    """A closed line (N, 2) without the points that it passes straight on, or stays at."""
    line = line[(line != np.roll(line, 1, axis=0)).any(1)] if len(line) > 1 else line
    before, after = np.sign(line - np.roll(line, 1, axis=0)), np.sign(np.roll(line, -1, axis=0) - line)
    corners = line[(before != after).any(1)]
    return corners if len(corners) else line[:1]
