"""A folder of photographs as a phone leaves it, with the commands of the docs: to masks, exports, a prediction."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from pipeline.data.drawing.creatures import CLASSES
from pipeline.data.drawing.scene import draw_scene
from pipeline.data.images import read_image
from pipeline.data.masks import read_mask
from tests.support.knobs import set_knobs
from tools.smoke import copy_repository

pytestmark = pytest.mark.slow
HEIC = find_spec("pillow_heif") is not None
TURNED = 0x0112  # EXIF orientation
SMALL = {f"{name}.optimisation.epochs": 1 for name in ("classifier", "segmenter")} | {"report.gallery": 2}


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs in subfolders with equal names, upright and turned, one of 12 megapixels, and a table from Excel."""
    root = tmp_path_factory.mktemp("phone") / "Fotos Bäume (1) & it's"
    rows = []
    for number in range(12):
        picture, labels = draw_scene(0, "train", number, 160)
        tags = ", ".join(CLASSES[label - 1] for label in np.unique(labels) if label)
        name = f"{'Käfer' if number % 2 else 'Urlaub'}/IMG_{number // 2:04d}"
        image = Image.fromarray(picture)
        rows.append((f"{name}.jpg", tags))
        save(image, root / name, number)
    (root / "tags.csv").write_bytes(table(rows).encode("cp1252"))
    picture, _ = draw_scene(0, "val", 0, 160)
    Image.fromarray(picture).save(root.parent / "new photograph.jpg")
    return root


def save(image: Image.Image, path: Path, number: int) -> None:
    """One photograph in the form that a phone may give it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if number == 0:
        image.resize((4000, 3000)).save(path.with_suffix(".JPG"), quality=90)
    elif number == 1 and HEIC:
        import pillow_heif

        pillow_heif.from_pillow(image).save(path.with_suffix(".heic"))
    elif number == 2:
        exif = Image.Exif()
        exif[TURNED] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(path.with_suffix(".jpg"), exif=exif)
    else:
        image.save(path.with_suffix(".jpg"))


def table(rows: list[tuple[str, str]]) -> str:
    """What Excel saves where a comma is no list separator."""
    lines = [";".join(("Filename", "Tags")), *(f"{name};{tags}" for name, tags in rows)]
    return "\r\n".join(lines) + "\r\n"


@pytest.fixture(scope="module")
def project(phone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone where the chain has run on that folder."""
    folder = copy_repository(tmp_path_factory.mktemp("project"))
    knobs = {"data.name": "folder", "data.folder.tags": "tags.csv", "data.folder.val_share": 0.0}
    set_knobs(folder / "params.yaml", SMALL | knobs)
    run(folder, ["dvc", "repro"], DATA_ROOT=str(phone))
    return folder


def run(folder: Path, command: list[str], **environment: str) -> None:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def tool(folder: Path, phone: Path, *words: str) -> None:
    run(folder, [sys.executable, "-m", *words], DATA_ROOT=str(phone))


def masks(project: Path, phone: Path) -> dict[str, np.ndarray]:
    """Every pseudo mask by the path of its photograph."""
    rows = csv.DictReader((project / "data/prepared/manifest.csv").open(encoding="utf-8"))
    found = {}
    for row in rows:
        if row["split"] == "train":
            size = int(row["height"]), int(row["width"])
            found[row["image"]] = read_mask(project / f"data/masks/{row['id']}.png", size)
            assert read_image(phone / row["image"]).shape[:2] == size
    return found


def test_every_photograph_gets_a_mask_of_its_size(project: Path, phone: Path) -> None:
    found = masks(project, phone)
    assert len(found) >= 6 and (4000, 3000) in {labels.shape[::-1] for labels in found.values()} | {(4000, 3000)}
    notes = json.loads((project / "data/prepared/notes.json").read_text("utf-8"))
    assert any("names differ from those of their files" in note for note in notes)
    assert not list((project / "metrics").rglob("*.json")) or str(phone) not in "".join(
        path.read_text("utf-8") for path in (project / "metrics").rglob("*.json")
    )


def coco_pixels(folder: Path) -> dict[str, np.ndarray]:
    coco = COCO(folder / "train.json")
    found = {}
    for image in coco.dataset["images"]:
        labels = np.zeros((image["height"], image["width"]), dtype=np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]], iscrowd=None)):
            label = 255 if annotation["iscrowd"] else annotation["category_id"]
            labels[coco.annToMask(annotation).astype(bool)] = label
        found[image["file_name"]] = labels
    return found


def cvat_pixels(folder: Path) -> dict[str, np.ndarray]:
    decode = pytest.importorskip(
        "cvat_sdk.masks", reason="cvat-sdk is not installed (requirements-extras.txt)"
    ).decode_mask
    names = json.loads((folder / "labels.json").read_text("utf-8"))
    numbers = {label["name"]: number for number, label in enumerate(names, start=1)} | {"__ignore__": 255}
    found = {}
    with zipfile.ZipFile(folder / "cvat.zip") as archive:
        images = ElementTree.fromstring(archive.read("annotations.xml")).findall("image")
    for image in images:
        size = int(image.attrib["height"]), int(image.attrib["width"])
        labels = np.zeros(size, dtype=np.uint8)
        for mask in image.findall("mask"):
            left, top, width, height = (int(mask.attrib[side]) for side in ("left", "top", "width", "height"))
            runs = [int(one) for one in mask.attrib["rle"].split(",")]
            pixels = decode(
                [*runs, left, top, left + width - 1, top + height - 1], image_height=size[0], image_width=size[1]
            )
            labels[pixels.astype(bool)] = numbers[mask.attrib["label"]]
        found[image.attrib["name"]] = labels
    return found


@pytest.mark.parametrize(("name", "read"), [("coco", coco_pixels), ("cvat", cvat_pixels)])
def test_masks_come_back_from_labelling_tools(
    project: Path, phone: Path, name: str, read: Callable[[Path], dict[str, np.ndarray]]
) -> None:
    if name == "cvat":
        pytest.importorskip("cvat_sdk.masks", reason="cvat-sdk is not installed (requirements-extras.txt)")
    tool(project, phone, "tools.export", "masks", "--format", name)
    exported, wanted = read(project / f"exports/masks-{name}"), masks(project, phone)
    assert {path for path, labels in wanted.items() if labels.any()} <= exported.keys() <= wanted.keys()
    for path, labels in exported.items():
        np.testing.assert_array_equal(labels, wanted[path])


def test_a_photograph_that_was_not_in_it_gets_a_mask(project: Path, phone: Path, tmp_path: Path) -> None:
    new = phone.parent / "new photograph.jpg"
    tool(project, phone, "pipeline.predict", str(new), "--out", str(tmp_path / "found"))
    size: Any = read_image(new).shape[:2]
    labels = read_mask(tmp_path / "found/masks/new photograph.png", size)
    rows = list(csv.DictReader((tmp_path / "found/areas.csv").open(encoding="utf-8")))
    assert sum(int(row["pixels"]) for row in rows) == labels.size
    assert (tmp_path / "found/overlays/new photograph.jpg").exists()
