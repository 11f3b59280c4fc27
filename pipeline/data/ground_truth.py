"""Ground-truth masks. Only `evaluate`, `report` and full supervision import this module; a test proves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.labels import IGNORE
from pipeline.data.manifest import PREPARED, Manifest, Record
from pipeline.data.masks import read_mask
from pipeline.run.errors import UserError
from pipeline.run.files import inside, read_json

Labels = NDArray[np.uint8]
Reader = Callable[[Path, Record], Labels]


def read_png(path: Path, record: Record) -> Labels:
    """A mask that is a PNG of labels, of the photograph's size."""
    return read_mask(path, record.size)


READERS: dict[str, Reader] = {"png": read_png}
"""How the mask (H, W) of a photograph is read from the file that holds it, in the labels of that file."""


class GroundTruth:
    """The masks that a data set comes with, in this project's labels."""

    def __init__(self, manifest: Manifest, root: Path) -> None:
        content = read_json(PREPARED / "ground_truth.json", "prepare_data")
        self.root = root
        self.masks: dict[str, str] = content["masks"]
        self.reader = READERS[content.get("reader", "png")]
        self.tune = frozenset[str](content["tune"])
        identity = list(range(256))
        self.label_map = np.array(content["label_map"] or identity, dtype=np.uint8)
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
            UserError: it is damaged, has another size than the photograph, or labels that no class has.
        """
        path = inside(self.root, self.masks[record.id])
        labels = self.label_map[self.reader(path, record)]
        if (unknown := labels[(labels >= self.labels) & (labels != IGNORE)]).size:
            raise UserError(
                f"{path}: label {unknown.max()} in the mask, but there are {self.labels - 1} classes; labels are 0 "
                "(background), 1.. in the order of data/prepared/classes.json, and 255 (void)"
            )
        return labels
