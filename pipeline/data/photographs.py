"""Reading the photographs of the manifest; no PyTorch is needed for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.images import read_image
from pipeline.data.manifest import Manifest, Record
from pipeline.run.errors import UserError
from pipeline.run.files import inside, sha256


def read_photograph(root: Path, record: Record, long_side: float | None = None) -> NDArray[np.uint8]:
    """A photograph (H, W, 3) uint8, upright; smaller than it is where it is large and shown at a small `long_side`.

    Raises:
        UserError: it is not what `prepare_data` saw.
    """
    path = inside(root, record.image)
    image = read_image(path, long_side=long_side)
    same = sha256(path) == record.sha256 if record.sha256 else image.shape[:2] == record.size
    if not same:
        raise UserError(f"{record.image} is another one than prepare_data saw; run `dvc repro --force prepare_data`")
    return image


class Photographs:
    """The photographs of a manifest, below the data root."""

    def __init__(self, manifest: Manifest, root: Path) -> None:
        self.root, self.records = root, manifest.records

    def __len__(self) -> int:
        return len(self.records)

    def read(self, record: Record, long_side: float | None = None) -> NDArray[np.uint8]:
        """A photograph (H, W, 3) uint8, upright, as `read_photograph` reads it."""
        return read_photograph(self.root, record, long_side)
