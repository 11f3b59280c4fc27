"""Masks as PNG of labels: plain grey for trainers (`png`), indexed in the layout of PASCAL VOC (`voc`)."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from pipeline.data.masks import voc_palette
from pipeline.run.errors import UserError
from pipeline.run.files import write_text
from tools.export.labelled import Labelled

BACKGROUND = "background"


def write_png(exported: Labelled, folder: Path) -> None:
    """`masks/<path of the photograph>.png`, one 8-bit grey channel; `classes.txt`; a list of names for each split.

    A palette PNG is a picture to OpenCV, which reads 38 for its label 1: no trainer mistakes grey.
    """
    for record, labels in exported.masks():
        path = folder / "masks" / Path(record.image).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels, mode="L").save(path)
    write_text(folder / "classes.txt", lines([BACKGROUND, *exported.manifest.classes]))
    for split in exported.splits():
        stems = [str(Path(record.image).with_suffix("")) for record in exported.manifest.split(split).records]
        write_text(folder / f"{split}.txt", lines(stems))


def write_voc(exported: Labelled, folder: Path) -> None:
    """`SegmentationClass/<id>.png`, `ImageSets/Segmentation/<split>.txt`, and `labelmap.txt`, which CVAT reads too.

    Raises:
        UserError: a class has a colon or a hash in its name, which `labelmap.txt` has no way to write.
    """
    if wrong := [name for name in exported.manifest.classes if {":", "#"} & set(name)]:
        raise UserError(f"labelmap.txt of VOC takes no class named {wrong[0]!r}; rename the tag, or use --format png")
    (folder / "SegmentationClass").mkdir()
    for record, _ in exported.masks():
        name = f"{record.id}.png"
        shutil.copyfile(exported.folder / name, folder / "SegmentationClass" / name)
    for split in exported.splits():
        ids = [record.id for record in exported.manifest.split(split).records]
        write_text(folder / f"ImageSets/Segmentation/{split}.txt", lines(ids))
    names, palette = {0: BACKGROUND, **exported.names}, voc_palette()
    rows = [f"{name}:{','.join(map(str, palette[label]))}::" for label, name in names.items()]
    write_text(folder / "labelmap.txt", lines(["# label:color_rgb:parts:actions", *rows]))


def lines(words: list[str]) -> str:
    """One word a line."""
    return "".join(f"{word}\n" for word in words)
