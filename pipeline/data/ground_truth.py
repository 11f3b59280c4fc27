"""Ground-truth masks: checked by `prepare_data`, read by `evaluate`, `report` and full supervision alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.manifest import PREPARED, Manifest, Record
from pipeline.data.masks import known_labels, read_mask
from pipeline.data.packed_masks import read_packed
from pipeline.run.errors import UserError
from pipeline.run.files import inside, read_json, sha256

Labels = NDArray[np.uint8]
Reader = Callable[[Path, Record], Labels]


def read_png(path: Path, record: Record) -> Labels:
    """A mask that is a PNG of labels, of the photograph's size."""
    return read_mask(path, record.size)


class MaskFiles(NamedTuple):
    """How masks lie in files.

    Attributes:
        read: the mask (H, W) of a photograph from the file that holds it, in the labels of that file.
        root: the folder that paths of the files are relative to; None: that of the photographs.
    """

    read: Reader
    root: Path | None = None


READERS = {"png": MaskFiles(read_png), "packed": MaskFiles(read_packed, PREPARED)}
"""Masks as the data set has them, and those that `prepare_data` draws from outlines."""


class GroundTruth:
    """The masks that a data set comes with, in this project's labels.

    Args:
        manifest: names the classes.
        root: the folder of the photographs, the attribute `root` too.

    Attributes:
        background: whether pixels may belong to no class.
    """

    def __init__(self, manifest: Manifest, root: Path) -> None:
        keys = ("masks", "label_map", "tune", "sha256")
        content = read_json(PREPARED / "ground_truth.json", "prepare_data", keys)
        self.root = root
        self.masks: dict[str, str] = content["masks"]
        self.files = READERS[content.get("reader", "png")]
        self.tune = frozenset[str](content["tune"])
        self.background: bool = content.get("background", True)
        label_map = content["label_map"]
        self.label_map = None if label_map is None else np.array(label_map, dtype=np.uint8)
        self.hashes: dict[str, str] = content["sha256"]
        self.unchanged: set[str] = set()
        self.labels = len(manifest.classes) + 1

    def known(self, manifest: Manifest) -> list[Record]:
        """The photographs that have a mask."""
        return [record for record in manifest.records if record.id in self.masks]

    def reported(self, manifest: Manifest) -> Manifest:
        """The photographs that reported numbers are of: all but the training photographs to choose on."""
        return replace(manifest, records=tuple(record for record in manifest.records if record.id not in self.tune))

    def to_choose_on(self, manifest: Manifest) -> Manifest:
        """The training photographs on which masks may choose something."""
        return replace(manifest, records=tuple(record for record in manifest.records if record.id in self.tune))

    def read(self, record: Record) -> Labels:
        """The mask (H, W) of a photograph; 255 is void.

        Raises:
            UserError: its file has changed since `prepare_data` looked at it, is damaged, has another size than the
                photograph, or labels that no class has.
        """
        name = self.masks[record.id]
        path = inside(self.files.root or self.root, name)
        labels = self.files.read(path, record)
        self._check_unchanged(name, path)
        return known_labels(path, labels, self.label_map, self.labels - 1)

    def _check_unchanged(self, name: str, path: Path) -> None:
        """Compare a file's hash with that of `prepare_data`, once."""
        if name not in self.unchanged and name in self.hashes and sha256(path) != self.hashes[name]:
            raise UserError(f"{path} has changed since it was looked at; run `dvc repro --force prepare_data`")
        self.unchanged.add(name)
