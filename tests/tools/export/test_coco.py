"""COCO files are read by pycocotools with equal pixels, boxes and areas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from tests.tools.export.conftest import CLASSES, Labels, Truth, rough, smooth

Exported = Callable[..., tuple[Path, Truth]]


def loaded(path: Path) -> tuple[Any, Truth]:
    """A file as pycocotools reads it, and the labels (H, W) of its photographs by their path."""
    coco, found = COCO(str(path)), {}
    for image in coco.loadImgs(coco.getImgIds()):
        labels = np.zeros((image["height"], image["width"]), np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]])):
            labels[coco.annToMask(annotation) > 0] = annotation["category_id"]
        found[image["file_name"]] = labels
    return coco, found


@pytest.mark.parametrize("draw", [smooth, rough])
def test_pixels_are_equal(exported: Exported, draw: Callable[[int], Labels]) -> None:
    folder, truth = exported("coco", draw=draw)
    coco, found = loaded(folder / "train.json")
    assert found.keys() == truth.keys()
    for image, labels in truth.items():
        np.testing.assert_array_equal(found[image], labels)
    names = {category["id"]: category["name"] for category in coco.loadCats(coco.getCatIds())}
    assert names == {**dict(enumerate(CLASSES, start=1)), 255: "__ignore__"}
    for annotation in coco.loadAnns(coco.getAnnIds()):
        pixels = coco.annToMask(annotation)
        rows, columns = pixels.any(1).nonzero()[0], pixels.any(0).nonzero()[0]
        box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
        assert annotation["area"] == pixels.sum() and annotation["bbox"] == box
        assert annotation["iscrowd"] == (annotation["category_id"] == 255)


def test_without_ignored_pixels_there_is_no_category_of_them(exported: Exported) -> None:
    folder, truth = exported("coco", source="predictions", draw=lambda number: smooth(number) % 4)
    coco, found = loaded(folder / "val.json")
    assert sorted(coco.getCatIds()) == [1, 2, 3]
    assert all(np.array_equal(found[image], labels) for image, labels in truth.items())


def test_a_mask_of_background_is_a_photograph_without_annotations(exported: Exported) -> None:
    folder, truth = exported("coco", draw=lambda number: np.zeros_like(smooth(number)))
    coco, found = loaded(folder / "train.json")
    assert len(coco.getImgIds()) == len(truth) == len(found) and not coco.getAnnIds()
