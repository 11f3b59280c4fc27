"""Saliency maps of another tool: where a photograph shows an object of whatever class (I+S: image tags and saliency).

One grey PNG of 8 bits for each training photograph, `<id>.png`, of its size: 0 is background, 255 an object. They are
looked at by `configure`, which hands their hash on, and by `prepare_data`; masks and ESOL's shrinkage read them.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.knobs import Knobs
from pipeline.data.manifest import Record
from pipeline.data.masks import read_mask
from pipeline.run.errors import UserError
from pipeline.run.files import expanded, sha256

Saliency = NDArray[np.float32]


class SaliencyFiles(Knobs):
    """What stages are told that read saliency maps: the folder, and the hash of all its maps."""

    folder: str
    sha256: str

    def check_unchanged(self) -> None:
        """Compare the files with those that `configure` saw.

        Raises:
            UserError: they are others.
        """
        if folder_hash(expanded(self.folder)) != self.sha256:
            raise UserError(
                f"data.saliency = {self.folder}: the maps have changed since `configure` looked at them; run "
                "`dvc repro --force configure`, then `dvc repro`"
            )

    def read(self, record: Record) -> Saliency:
        """The saliency (H, W) of a photograph, float32 in [0, 1].

        Raises:
            UserError: there is no such map, or it is no grey PNG of the photograph's size.
        """
        return read_saliency(expanded(self.folder), record)


def read_saliency(folder: Path, record: Record) -> Saliency:
    """The saliency (H, W) of a photograph, float32 in [0, 1].

    Raises:
        UserError: there is no such map, or it is no grey PNG of the photograph's size.
    """
    path = folder / f"{record.id}.png"
    if not path.is_file():
        raise UserError(f"{path}: saliency map not found; every photograph that gets a mask needs one")
    try:
        return read_mask(path, record.size).astype(np.float32) / np.float32(255)
    except UserError as error:
        raise UserError(f"saliency map {error}") from error


def saliency_problems(folder: Path, records: list[Record], workers: int) -> list[str]:
    """One line for each photograph whose map is missing or cannot be used."""

    def problem(record: Record) -> str | None:
        try:
            read_saliency(folder, record)
        except UserError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(max(1, workers)) as pool:
        return [line for line in pool.map(problem, records) if line]


def folder_hash(folder: Path) -> str:
    """SHA-256 over the names and hashes of the PNG files in a folder."""
    with ThreadPoolExecutor() as pool:
        paths = sorted(folder.glob("*.png"))
        lines = [f"{path.name} {digest}\n" for path, digest in zip(paths, pool.map(sha256, paths), strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
