"""Saliency maps of another tool: where a photograph shows an object of whatever class (I+S: image tags and saliency).

One grey PNG of 8 bits for each training photograph, `<id>.png`, of its size: 0 is background, 255 an object. They are
looked at by `configure`, which hands their hash on, and by `prepare_data`; masks and ESOL's shrinkage read them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.manifest import Record
from pipeline.data.masks import read_mask
from pipeline.data.outside import PNG, outside_file
from pipeline.run.errors import UserError

Saliency = NDArray[np.float32]
SALIENCY = "data.saliency"
"""The knob that names the folder."""


def read_saliency(folder: Path, record: Record) -> Saliency:
    """The saliency (H, W) of a photograph, float32 in [0, 1].

    Raises:
        UserError: there is no such map, or it is no grey PNG of the photograph's size.
    """
    path = outside_file(folder, record.id, PNG)
    if path is None:
        raise UserError(
            f"{folder / record.id}.png: saliency map not found; every photograph that gets a mask needs one"
        )
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
