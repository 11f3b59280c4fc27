"""PNG masks are read with equal labels by what trainers read with, and lie where the photographs' names say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.data.manifest import PREPARED, Manifest, load_manifest, save_manifest
from pipeline.run.errors import UserError
from tests.tools.export.conftest import CLASSES, IMAGES, Truth, rough, smooth
from tools.export.__main__ import export

Exported = Callable[..., tuple[Path, Truth]]


@pytest.mark.parametrize("draw", [smooth, rough])
def test_png_is_one_grey_channel_of_labels(exported: Exported, draw: Callable[[int], object]) -> None:
    folder, truth = exported("png", draw=draw)
    for image, labels in truth.items():
        path = folder / "masks" / image
        with Image.open(path) as picture:
            assert picture.mode == "L"
            np.testing.assert_array_equal(np.array(picture), labels)
        for flag in (cv2.IMREAD_UNCHANGED, cv2.IMREAD_GRAYSCALE):
            data = np.frombuffer(path.read_bytes(), np.uint8)
            np.testing.assert_array_equal(cv2.imdecode(data, flag), labels)
    assert len([path for path in (folder / "masks").rglob("*") if path.is_file()]) == len(truth)
    assert (folder / "classes.txt").read_text("utf-8").splitlines() == ["background", *CLASSES]
    assert (folder / "train.txt").read_text("utf-8").splitlines() == [name.removesuffix(".png") for name in IMAGES[:3]]
    assert not (folder / "val.txt").exists()


def test_voc_is_indexed_in_the_devkits_layout(exported: Exported) -> None:
    folder, truth = exported("voc", source="predictions")
    ids = (folder / "ImageSets/Segmentation/val.txt").read_text("utf-8").split("\n")
    assert ids == ["plain", "last", ""]
    for image, labels in truth.items():
        with Image.open(folder / "SegmentationClass" / image) as picture:
            assert picture.mode == "P"
            np.testing.assert_array_equal(np.array(picture), labels)


def test_voc_is_read_by_datumaro(exported: Exported) -> None:
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed")
    folder, truth = exported("voc")
    found = datumaro.Dataset.import_from(str(folder), "voc_segmentation")
    names = [label.name for label in found.categories()[datumaro.AnnotationType.label]]
    place = {"background": 0, "__ignore__": 255, **{name: k for k, name in enumerate(CLASSES, start=1)}}
    assert len(found) == len(truth)
    for item in found:
        (labels,) = (
            value for image, value in truth.items() if image.removesuffix(".png").replace("/", "__") == item.id
        )
        drawn = np.zeros_like(labels)
        for annotation in item.annotations:
            drawn[annotation.image.astype(bool)] = place[names[annotation.label]]
        np.testing.assert_array_equal(drawn, labels)


def test_voc_refuses_names_that_its_list_of_labels_cannot_hold() -> None:
    manifest = load_manifest()
    save_manifest(PREPARED, Manifest(manifest.records, ("cat", "a:b", "dog")))
    with pytest.raises(UserError, match="takes no class named 'a:b'"):
        export("masks", "voc", Path("out"))
    assert not Path("out").exists()
