"""Polygons give the pixels back, holes too, to those who fill them and their border."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw

from models.labels import IGNORE
from pipeline.run.errors import UserError
from tests.support.project import PHOTOGRAPHS
from tests.tools.export.conftest import CLASSES, Labels, Truth, rough, smooth
from tools.export.__main__ import export
from tools.export.labelled import parts
from tools.export.polygons import outline

Exported = Callable[..., tuple[Path, Truth]]


def filled(rows: list[str], size: tuple[int, int]) -> Labels:
    """Labels of YOLO's rows, drawn as Ultralytics does: shares times size, cut to whole pixels, filled."""
    drawn = np.zeros(size, np.uint8)
    for row in rows:
        label, *shares = row.split()
        points = np.array(shares, dtype=np.float32).reshape(-1, 2) * np.array(size[::-1])
        cv2.fillPoly(drawn, [points.astype(np.int32)], int(label) + 1)
    return drawn


def name_of(image: str) -> str:
    return image.removesuffix(".png").replace("/", "__")


@pytest.mark.parametrize("draw", [smooth, rough])
def test_yolo_rows_give_the_pixels_back(exported: Exported, draw: Callable[[int], Labels]) -> None:
    folder, truth = exported("yolo", draw=draw)
    for image, labels in truth.items():
        copy = folder / "images/train" / f"{name_of(image)}.png"
        assert copy.read_bytes() == (Path(PHOTOGRAPHS) / image).read_bytes()
        rows = (folder / "labels/train" / f"{name_of(image)}.txt").read_text().splitlines()
        np.testing.assert_array_equal(filled(rows, labels.shape), np.where(labels == IGNORE, 0, labels))


def test_yolo_is_read_by_supervision(exported: Exported) -> None:
    supervision = pytest.importorskip("supervision", reason="supervision is not installed")
    folder, truth = exported("yolo", draw=lambda number: smooth(number) % IGNORE)
    found = supervision.DetectionDataset.from_yolo(
        str(folder / "images/train"), str(folder / "labels/train"), str(folder / "data.yaml"), force_masks=True
    )
    assert found.classes == list(CLASSES)
    by_name = {Path(path).stem: (image, detections) for path, image, detections in found}
    for image, labels in truth.items():
        _, detections = by_name[name_of(image)]
        drawn = np.zeros_like(labels)
        for pixels, number in zip(detections.mask, detections.class_id, strict=True):
            drawn[pixels] = number + 1
        np.testing.assert_array_equal(drawn, labels)


def test_yolo_names_splits_and_classes(exported: Exported) -> None:
    folder, _ = exported("yolo", source="predictions")
    content = yaml.safe_load((folder / "data.yaml").read_text("utf-8"))
    assert content == {"train": "images/val", "val": "images/val", "names": dict(enumerate(CLASSES))}
    assert {path.stem for path in (folder / "images/val").iterdir()} == {"plain", "last"}


@pytest.mark.parametrize("draw", [smooth, rough])
def test_labelme_shapes_give_the_pixels_back(exported: Exported, draw: Callable[[int], Labels]) -> None:
    folder, truth = exported("labelme", draw=draw)
    names = ["__ignore__", *CLASSES]
    assert (folder / "labels.txt").read_text("utf-8").splitlines() == names
    for image, labels in truth.items():
        content = json.loads((folder / f"{name_of(image)}.json").read_text("utf-8"))
        assert (folder / content["imagePath"]).read_bytes() == (Path(PHOTOGRAPHS) / image).read_bytes()
        assert (content["imageHeight"], content["imageWidth"]) == labels.shape
        drawn = Image.new("L", labels.shape[::-1])
        for shape in content["shapes"]:
            points = [tuple(point) for point in shape["points"]]
            label = names.index(shape["label"]) or IGNORE
            ImageDraw.Draw(drawn).polygon(points, outline=label, fill=label)
        np.testing.assert_array_equal(np.array(drawn), labels)


def test_labelme_reads_its_files(exported: Exported) -> None:
    files = pytest.importorskip("labelme._label_file", reason="labelme is not installed")
    utils = pytest.importorskip("labelme.utils", reason="labelme is not installed")
    folder, truth = exported("labelme")
    numbers = {"__ignore__": IGNORE, **{name: k for k, name in enumerate(CLASSES, start=1)}}
    for image, labels in truth.items():
        read = files.read_label_file(str(folder / f"{name_of(image)}.json"))
        drawn, _ = utils.shapes_to_label(labels.shape, read.shapes, numbers)
        np.testing.assert_array_equal(drawn, labels)


def by_opencv(labels: Labels) -> Labels:
    """The polygons of a mask, drawn."""
    drawn = np.zeros_like(labels)
    for part in parts(labels):
        points = outline(part)
        assert len(points) >= 3
        cv2.fillPoly(drawn, [points], part.label)
    return drawn


SLIT = np.ones((31, 31), np.uint8)
SLIT[4:27, 4:27] = 0
SLIT[6:25, 6:25] = 1
SLIT[24:27, 14:16] = 1
SLIT[12:18, 12:18] = 0


@pytest.mark.parametrize(
    "labels",
    [
        np.eye(6, dtype=np.uint8),
        np.array([[1]], np.uint8),
        np.array([[0, 0, 0], [0, 1, 1]], np.uint8),
        np.pad(np.zeros((3, 4), np.uint8), 2, constant_values=1),
        np.kron(np.array([[1, 1, 1, 1, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 1]]), np.ones((3, 3))).astype(np.uint8),
        np.pad(np.pad(np.array([[2, 2]], np.uint8), 2), 2, constant_values=1),
        *(np.rot90(SLIT, turns) for turns in range(4)),
    ],
    ids=[
        "diagonal",
        "pixel",
        "line",
        "hole",
        "two holes",
        "island",
        *(f"hole in a slit {turns}" for turns in range(4)),
    ],
)
def test_shapes_come_back_whole(labels: Labels) -> None:
    np.testing.assert_array_equal(by_opencv(labels.copy()), labels)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_any_mask_comes_back_whole(share: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        size = rng.integers(1, 14, 2)
        labels = np.where(rng.random(size) < share, 1, rng.integers(0, 3, size)).astype(np.uint8)
        np.testing.assert_array_equal(by_opencv(labels), labels)


def test_straight_sides_have_no_points_between_corners() -> None:
    (part,) = parts(np.pad(np.ones((20, 30), np.uint8), 3))
    assert sorted(outline(part).tolist()) == [[3, 3], [3, 22], [32, 3], [32, 22]]


def test_a_changed_photograph_is_not_exported() -> None:
    Image.new("RGB", (3, 3)).save(Path(PHOTOGRAPHS) / "plain.png")
    with pytest.raises(UserError, match=r"plain\.png is another one than prepare_data saw"):
        export("predictions", "yolo", Path("out"))
    assert not Path("out").exists()
