"""CVAT's file is read with equal pixels, by its SDK's decoder and by datumaro, and every part is a mask of its own."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as Xml

import numpy as np
import pytest
from scipy import ndimage

from tests.support.project import PHOTOGRAPHS
from tests.tools.export.conftest import CLASSES, Labels, Truth, rough, smooth

Exported = Callable[..., tuple[Path, Truth]]
masks = pytest.importorskip("cvat_sdk.masks", reason="cvat-sdk is not installed (requirements-extras.txt)")
LABELS = {**{name: k for k, name in enumerate(CLASSES, start=1)}, "__ignore__": 255}


def images(folder: Path) -> list[Xml.Element]:
    """The photographs of an export."""
    with zipfile.ZipFile(folder / "cvat.zip") as archive:
        assert archive.namelist() == ["annotations.xml"]
        return Xml.fromstring(archive.read("annotations.xml")).findall("image")


def decoded(mask: Xml.Element, size: tuple[int, int]) -> Labels:
    """The pixels of a mask element, as CVAT's SDK sees them."""
    left, top, width, height = (int(mask.attrib[name]) for name in ("left", "top", "width", "height"))
    runs = [int(run) for run in mask.attrib["rle"].split(",")]
    shape = [*runs, left, top, left + width - 1, top + height - 1]
    pixels: Labels = masks.decode_mask(shape, image_height=size[0], image_width=size[1])
    return pixels


@pytest.mark.parametrize("draw", [smooth, rough])
def test_pixels_are_equal_and_parts_apart(exported: Exported, draw: Callable[[int], Labels]) -> None:
    folder, truth = exported("cvat", draw=draw)
    found = images(folder)
    assert [image.attrib["name"] for image in found] == list(truth)
    for image, labels in zip(found, truth.values(), strict=True):
        assert (int(image.attrib["height"]), int(image.attrib["width"])) == labels.shape
        drawn = np.zeros_like(labels)
        for mask in image.findall("mask"):
            pixels = decoded(mask, labels.shape)
            assert ndimage.label(pixels, np.ones((3, 3)))[1] == 1 and not drawn[pixels].any()
            drawn[pixels] = LABELS[mask.attrib["label"]]
        np.testing.assert_array_equal(drawn, labels)


def test_the_labels_of_the_task_are_those_of_the_masks(exported: Exported) -> None:
    folder, _ = exported("cvat")
    known = json.loads((folder / "labels.json").read_text("utf-8"))
    assert [label["name"] for label in known] == list(LABELS) and known[0]["color"] == "#800000"
    used = {mask.attrib["label"] for image in images(folder) for mask in image.findall("mask")}
    assert used == set(LABELS)


def test_it_is_read_by_datumaro(exported: Exported) -> None:
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed")
    folder, truth = exported("cvat")
    with zipfile.ZipFile(folder / "cvat.zip") as archive:
        archive.extractall("read")
    shutil.copytree(PHOTOGRAPHS, "read/images")
    found = datumaro.Dataset.import_from("read", "cvat")
    names = [label.name for label in found.categories()[datumaro.AnnotationType.label]]
    assert {f"{item.id}.png" for item in found} == truth.keys()
    for item in found:
        labels = truth[f"{item.id}.png"]
        drawn = np.zeros_like(labels)
        for annotation in item.annotations:
            drawn[annotation.image.astype(bool)] = LABELS[names[annotation.label]]
        np.testing.assert_array_equal(drawn, labels)
