"""Polygons give the pixels back, but for the few that a cut crosses, and the export counts these."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw
from scipy import ndimage

from models.labels import IGNORE
from pipeline.run.errors import UserError
from tests.support.project import PHOTOGRAPHS
from tests.tools.export.conftest import CLASSES, Labels, Truth, smooth
from tools.export.__main__ import export
from tools.export.labelled import parts
from tools.export.polygons import Loss, outline

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


def test_yolo_rows_give_the_pixels_back(exported: Exported) -> None:
    folder, truth = exported("yolo")
    pixels = changed = 0
    for image, labels in truth.items():
        copy = folder / "images/train" / f"{name_of(image)}.png"
        assert copy.read_bytes() == (Path(PHOTOGRAPHS) / image).read_bytes()
        rows = (folder / "labels/train" / f"{name_of(image)}.txt").read_text().splitlines()
        expected = np.where(labels == IGNORE, 0, labels)
        changed += int((filled(rows, expected.shape) != expected).sum())
        pixels += int((expected > 0).sum())
    assert changed <= 0.01 * pixels
    remark = json.loads((folder / "export.json").read_text())["remark"]
    assert remark.startswith(f"polygons, drawn again, differ in {changed} pixels, ")


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
        assert (drawn != labels).sum() <= 0.01 * (labels > 0).sum()


def test_yolo_names_splits_and_classes(exported: Exported) -> None:
    folder, _ = exported("yolo", source="predictions")
    content = yaml.safe_load((folder / "data.yaml").read_text("utf-8"))
    assert content == {"train": "images/val", "val": "images/val", "names": dict(enumerate(CLASSES))}
    assert {path.stem for path in (folder / "images/val").iterdir()} == {"plain", "last"}


def test_labelme_shapes_give_the_pixels_back(exported: Exported) -> None:
    folder, truth = exported("labelme")
    names = ["__ignore__", *CLASSES]
    assert (folder / "labels.txt").read_text("utf-8").splitlines() == names
    pixels = changed = 0
    for image, labels in truth.items():
        content = json.loads((folder / f"{name_of(image)}.json").read_text("utf-8"))
        assert (folder / content["imagePath"]).read_bytes() == (Path(PHOTOGRAPHS) / image).read_bytes()
        assert (content["imageHeight"], content["imageWidth"]) == labels.shape
        drawn = Image.new("L", labels.shape[::-1])
        for shape in content["shapes"]:
            points = [tuple(point) for point in shape["points"]]
            label = names.index(shape["label"]) or IGNORE
            ImageDraw.Draw(drawn).polygon(points, outline=label, fill=label)
        changed += int((np.array(drawn) != labels).sum())
        pixels += int((labels > 0).sum())
    assert changed <= 0.01 * pixels


def test_labelme_reads_its_files(exported: Exported) -> None:
    files = pytest.importorskip("labelme._label_file", reason="labelme is not installed")
    utils = pytest.importorskip("labelme.utils", reason="labelme is not installed")
    folder, truth = exported("labelme")
    numbers = {"__ignore__": IGNORE, **{name: k for k, name in enumerate(CLASSES, start=1)}}
    for image, labels in truth.items():
        read = files.read_label_file(str(folder / f"{name_of(image)}.json"))
        drawn, _ = utils.shapes_to_label(labels.shape, read.shapes, numbers)
        assert (drawn != labels).sum() <= 0.01 * (labels > 0).sum()


@pytest.mark.parametrize(
    "labels",
    [
        np.eye(6, dtype=np.uint8),
        np.array([[1]], np.uint8),
        np.array([[0, 0, 0], [0, 1, 1]], np.uint8),
        np.pad(np.zeros((3, 4), np.uint8), 2, constant_values=1),
        np.kron(np.array([[1, 1, 1, 1, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 1]]), np.ones((3, 3))).astype(np.uint8),
        np.pad(np.pad(np.array([[2, 2]], np.uint8), 2), 2, constant_values=1),
    ],
    ids=["diagonal", "pixel", "line", "hole", "two holes", "island"],
)
def test_shapes_come_back_whole(labels: Labels) -> None:
    loss = Loss()
    outlined = [(part.label, outline(part)) for part in parts(labels)]
    assert all(len(points) >= 3 for _, points in outlined)
    loss.count(labels, outlined)
    assert loss.changed == 0


def test_what_a_cut_crosses_is_counted() -> None:
    labels = np.ones((31, 31), np.uint8)
    labels[4:27, 4:27] = 0
    labels[6:25, 6:25] = 1
    labels[24:27, 14:16] = 1
    labels[12:18, 12:18] = 0
    loss, drawn = Loss(), np.zeros_like(labels)
    outlined = [(part.label, outline(part)) for part in parts(labels)]
    loss.count(labels, outlined)
    for label, points in outlined:
        cv2.fillPoly(drawn, [points], label)
    assert loss.changed == (drawn != labels).sum() and 0 < loss.changed < 5, "a hole inside a slit that nearly closes"
    assert str(loss) == f"polygons, drawn again, differ in {loss.changed} pixels, 0.39 % of those of classes"


@pytest.mark.parametrize("width", [1.0, 2.0, 4.0])
def test_few_pixels_are_lost_of_spotted_masks(width: float) -> None:
    loss = Loss()
    for seed in range(3):
        values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(120, 160)), width)
        labels = (values > np.quantile(values, 0.3)).astype(np.uint8)
        loss.count(labels, [(part.label, outline(part)) for part in parts(labels)])
    assert loss.changed <= 0.003 * loss.pixels


def test_a_changed_photograph_is_not_exported() -> None:
    Image.new("RGB", (3, 3)).save(Path(PHOTOGRAPHS) / "plain.png")
    with pytest.raises(UserError, match=r"plain\.png is another one than prepare_data saw"):
        export("predictions", "yolo", Path("out"))
    assert not Path("out").exists()
