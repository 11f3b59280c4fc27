"""What is exported: photographs of the manifest and their masks, and what several formats ask of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from tqdm import tqdm

from models.labels import IGNORE
from pipeline.data.manifest import Manifest, Record, load_manifest
from pipeline.data.masks import read_mask, voc_palette
from pipeline.data.photographs import read_photograph
from pipeline.run.errors import UserError
from pipeline.run.files import inside, write_text
from pipeline.run.told import Runtime, told

Labels = NDArray[np.uint8]
Region = NDArray[np.bool_]

SOURCES = {"masks": ("data/masks", "make_masks"), "predictions": ("data/predictions", "predict")}
"""What can be exported: its folder, and the stage that writes it."""
IGNORED = "__ignore__"
"""The name of label 255 in formats that name labels; LabelMe's own word."""
EIGHT_NEIGHBOURS = np.ones((3, 3))


@dataclass(frozen=True)
class Labelled:
    """Photographs that have a mask.

    Attributes:
        manifest: of these photographs alone.
        folder: of their masks.
        root: the folder that their paths begin in.
    """

    manifest: Manifest
    folder: Path
    root: Path

    @property
    def names(self) -> dict[int, str]:
        """The name of every label that is drawn: classes from 1 on, and 255."""
        return {**dict(enumerate(self.manifest.classes, start=1)), IGNORE: IGNORED}

    def splits(self) -> list[str]:
        """The splits that the photographs are of: train before val."""
        return sorted({record.split for record in self.manifest.records})

    def masks(self, split: str | None = None) -> Iterator[tuple[Record, Labels]]:
        """Every photograph, or those of one split, with its labels (H, W).

        Raises:
            UserError: a mask is missing or damaged, or has a label that is no class.
        """
        chosen = self.manifest if split is None else self.manifest.split(split)
        for record in tqdm(chosen.records, desc=split or "masks", disable=None):
            path = self.folder / f"{record.id}.png"
            labels = read_mask(path, record.size)
            if unknown := set(np.unique(labels).tolist()) - {0, *self.names}:
                raise UserError(f"{path}: label {min(unknown)}, but there are {len(self.manifest.classes)} classes")
            yield record, labels


def labelled(source: str) -> Labelled:
    """The photographs whose masks are there; a split that has some must have all.

    Args:
        source: a key of `SOURCES`.

    Raises:
        UserError: there are none, or a class has the name that 255 is exported under.
    """
    (name, stage), manifest = SOURCES[source], load_manifest()
    folder = Path(name)
    splits = {record.split for record in manifest.records if (folder / f"{record.id}.png").exists()}
    if not splits:
        raise UserError(f"{folder} holds no mask of a photograph in the manifest; run `dvc repro {stage}`")
    if IGNORED in manifest.classes:
        raise UserError(f"a class is called {IGNORED}, which is the name of ignored pixels in exports; rename its tag")
    records = tuple(record for record in manifest.records if record.split in splits)
    return Labelled(Manifest(records, manifest.classes), folder, told("runtime", Runtime).folder)


def regions(labels: Labels) -> Iterator[tuple[int, Region]]:
    """The pixels (H, W) of every class, and of 255, that a mask shows."""
    for label in np.unique(labels[labels > 0]).tolist():
        yield label, labels == label


class Part(NamedTuple):
    """Connected pixels of one label, in the smallest box that holds them.

    Attributes:
        top, left: of the box.
        pixels: (h, w), true where the part is.
    """

    label: int
    top: int
    left: int
    pixels: Region


def parts(labels: Labels) -> Iterator[Part]:
    """The connected parts of every class, and of 255, that a mask shows; corners connect."""
    for label, region in regions(labels):
        numbered, _ = ndimage.label(region, EIGHT_NEIGHBOURS)
        for number, box in enumerate(ndimage.find_objects(numbered), start=1):
            yield Part(label, box[0].start, box[1].start, numbered[box] == number)


def colour(label: int) -> str:
    """The colour of a label in VOC's palette, as #rrggbb."""
    return "#" + voc_palette()[label].tobytes().hex()


def copy_photograph(root: Path, record: Record, folder: Path) -> str:
    """Copy a photograph under its id, since readers may rewrite what they find damaged; returns its name.

    Raises:
        UserError: it is not what `prepare_data` saw.
    """
    read_photograph(root, record)
    name = f"{record.id}{Path(record.image).suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(inside(root, record.image), folder / name)
    return name


def write_compact(path: Path, content: Any) -> None:
    """Write JSON without line ends: run lengths are long lists."""
    write_text(path, json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n")
