"""A data set in COCO's format: a few photographs with every kind of outline, in the folder `photos`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.run.files import write_text
from tests.support.sources import photo

Json = dict[str, Any]

CATEGORIES = {3: "car", 17: "cat", 90: "toothbrush"}
"""Ids with gaps, whose order is that of the labels 1, 2, 3."""

WIDTH, HEIGHT = 12, 8


def box(left: float, top: float, right: float, bottom: float) -> list[float]:
    """A polygon that is a rectangle."""
    return [left, top, right, top, right, bottom, left, bottom]


def runs(pixels: NDArray[np.bool_]) -> Json:
    """Run lengths of pixels (H, W), as COCO writes those of crowds."""
    flat = np.concatenate([[False], pixels.ravel(order="F")])
    starts = np.flatnonzero(flat[1:] != flat[:-1]).tolist()
    return {"size": list(pixels.shape), "counts": np.diff([0, *starts, pixels.size]).tolist()}


def rectangle(left: int, top: int, right: int, bottom: int) -> NDArray[np.bool_]:
    """The pixels (HEIGHT, WIDTH) of a rectangle."""
    pixels = np.zeros((HEIGHT, WIDTH), dtype=bool)
    pixels[top:bottom, left:right] = True
    return pixels


def annotated(*objects: tuple[int, Any] | tuple[int, Any, int]) -> list[Json]:
    """Objects of one photograph, each a category, its outline and perhaps 1 for a crowd."""
    return [
        {"category_id": category, "segmentation": outline, "iscrowd": crowd[0] if crowd else 0}
        for category, outline, *crowd in objects
    ]


LARGE, SMALL = box(0, 0, 8, 8), box(2, 2, 6, 6)
CROWD = runs(rectangle(4, 0, 12, 4))

TRAIN = {
    1: annotated((17, [SMALL]), (3, [LARGE])),  # the small cat in front of the large car, listed first
    2: annotated((3, [LARGE]), (90, CROWD, 1)),  # a car in front of a crowd
    3: [],
    4: annotated(
        (90, [box(1, 1, 1.2, 1.2)]), (17, [box(0, 0, 2, 2), box(9, 5, 12, 8)])
    ),  # no pixel; one cat in two parts
}
VAL = {7: annotated((3, CROWD, 1)), 9: [], 11: annotated((17, runs(rectangle(0, 0, 1, 8))))}


def instances(split: str, photographs: Mapping[int, Sequence[Json]]) -> Json:
    """The content of a file of instances; photographs are listed backwards, as no order is promised."""
    objects = [(number, thing) for number, own in photographs.items() for thing in own]
    return {
        "info": {"description": "COCO 2014"},
        "images": [
            {"id": number, "file_name": f"{name_of(split, number)}.jpg", "width": WIDTH, "height": HEIGHT}
            for number in sorted(photographs, reverse=True)
        ],
        "categories": [{"id": number, "name": name, "supercategory": "all"} for number, name in CATEGORIES.items()],
        "annotations": [
            {"id": 100 + place, "image_id": owner, "area": 1.0} | thing for place, (owner, thing) in enumerate(objects)
        ],
    }


def name_of(split: str, number: int) -> str:
    """A photograph's id."""
    return f"COCO_{split}2014_{number:012d}"


def write_instances(split: str, content: Any) -> Path:
    """Write the file of instances of a split."""
    path = Path(f"photos/annotations/instances_{split}2014.json")
    write_text(path, content if isinstance(content, str) else json.dumps(content))
    return path


def write_coco(
    train: Mapping[int, Sequence[Json]] = TRAIN, val: Mapping[int, Sequence[Json]] = VAL
) -> tuple[Json, Json]:
    """Write both files and all photographs; gives what the files hold."""
    contents = instances("train", train), instances("val", val)
    for split, content in zip(("train", "val"), contents, strict=True):
        write_instances(split, content)
        for image in content["images"]:
            photo(f"{split}2014/{image['file_name']}", (WIDTH, HEIGHT), f"hsl({image['id'] * 40 % 360}, 50%, 50%)")
    return contents
