"""Reading the photographs of the manifest; no PyTorch is needed for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.images import read_image
from pipeline.data.manifest import Manifest, Record
from pipeline.run.errors import UserError
from pipeline.run.files import inside, sha256


def read_photograph(root: Path, record: Record) -> NDArray[np.uint8]:
    """A photograph (H, W, 3) uint8, upright.

    Raises:
        UserError: it is not what `prepare_data` saw.
    """
    path = inside(root, record.image)
    image = read_image(path)
    if image.shape[:2] != record.size or (record.sha256 and sha256(path) != record.sha256):
        raise UserError(f"{record.image} is another one than prepare_data saw; run `dvc repro --force prepare_data`")
    return image


class Photographs:
    """The photographs of a manifest, below the data root."""

    def __init__(self, manifest: Manifest, root: Path) -> None:
        self.root, self.records = root, manifest.records

    def __len__(self) -> int:
        return len(self.records)

    def read(self, record: Record) -> NDArray[np.uint8]:
        """A photograph (H, W, 3) uint8, upright."""
        return read_photograph(self.root, record)
