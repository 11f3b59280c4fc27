"""Photographs in subfolders, and masks of them, as make_masks and predict leave them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from models.labels import IGNORE
from pipeline.data.manifest import PREPARED, Manifest, Record, save_manifest
from pipeline.data.masks import write_mask
from tests.support.project import PHOTOGRAPHS
from tests.support.stages import write_runtime
from tools.export.__main__ import export

CLASSES = ("cat", "Zürich & more", "dog")
IMAGES = ("holiday/IMG_0001.png", "images/a b/IMG_0001.png", "it's 100%/x.v2__y.png", "plain.png", "last.png")
SIZES = ((40, 56), (61, 33), (48, 48), (30, 90), (50, 40))

Labels = NDArray[np.uint8]
Truth = dict[str, Labels]


def smooth(number: int) -> Labels:
    """Patches of labels 0 to 3 and 255 with holes, islands in holes and contacts at corners."""
    rng = np.random.default_rng(number)
    values = np.stack([ndimage.gaussian_filter(rng.normal(size=SIZES[number]), 3) for _ in range(5)])
    return np.array([0, 1, 2, 3, IGNORE], dtype=np.uint8)[values.argmax(0)]


def rough(number: int) -> Labels:
    """Every pixel has a label of its own."""
    rng = np.random.default_rng(number)
    return rng.choice(np.array([0, 1, 2, 3, IGNORE], dtype=np.uint8), SIZES[number])


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three training and two validation photographs."""
    monkeypatch.chdir(tmp_path)
    write_runtime(Path(), root=PHOTOGRAPHS)
    records = []
    for number, (image, (height, width)) in enumerate(zip(IMAGES, SIZES, strict=True)):
        path = Path(PHOTOGRAPHS) / image
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), (number, 0, 0)).save(path)
        name = image.removesuffix(".png").replace("/", "__")
        records.append(Record(name, "train" if number < 3 else "val", image, width, height, ()))
    save_manifest(PREPARED, Manifest(tuple(records), CLASSES))
    draw_masks(smooth)


def draw_masks(draw: Callable[[int], Labels]) -> None:
    """Masks of the training photographs, predictions of the others."""
    for number, image in enumerate(IMAGES):
        folder = "data/masks" if number < 3 else "data/predictions"
        write_mask(Path(folder) / (image.removesuffix(".png").replace("/", "__") + ".png"), draw(number))


@pytest.fixture
def exported() -> Callable[..., tuple[Path, Truth]]:
    """Writes an export; gives its folder, and the labels that it has to hold by a photograph's path."""

    def write(name: str, source: str = "masks", draw: Callable[[int], Labels] = smooth) -> tuple[Path, Truth]:
        draw_masks(draw)
        export(source, name, Path("out"))
        numbers = range(3) if source == "masks" else range(3, 5)
        return Path("out"), {IMAGES[number]: draw(number) for number in numbers}

    return write
