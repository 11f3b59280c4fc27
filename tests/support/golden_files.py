"""Collects the reference arrays that the parity tests compare with."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from tests.support import GOLDEN

GOLDEN_DIR = Path(os.environ.get("GOLDEN_DIR", GOLDEN))
File = dict[str, np.ndarray]


def golden(prefix: str) -> list[Any]:
    """One pytest parameter per reference file whose name starts with `prefix`; the file name is the test id.

    A prefix without a file gives one parameter on which `load` fails, so that a renamed or lost file cannot
    pass unseen.
    """
    paths = sorted(GOLDEN_DIR.glob(f"{prefix}*.npz")) or [GOLDEN_DIR / f"{prefix}-no-file.npz"]
    return [pytest.param(path, id=path.stem) for path in paths]


def load(path: Path) -> File:
    """Read all arrays of one reference file, without pickles."""
    if not path.is_file():
        pytest.fail(f"no reference file {path.name.removesuffix('-no-file.npz')}*.npz in {GOLDEN_DIR}")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def released_shapes(path: Path) -> dict[str, list[int]]:
    """Names and shapes of a released network's entries, from one of the `shapes_*.json`."""
    entries: dict[str, list[int]] = json.loads(path.read_text())["entries"]
    return entries


def tensors(file: File, *names: str) -> list[Tensor]:
    """Some arrays of a file as tensors."""
    return [torch.from_numpy(file[name]) for name in names]


def close(ours: Tensor | None, reference: ArrayLike, tolerance: float, relative_to_max: bool = False) -> None:
    """Largest absolute difference at most `tolerance`, optionally times the reference's largest magnitude."""
    assert ours is not None
    expected = np.asarray(reference)
    scale = float(np.abs(expected).max()) if relative_to_max else 1.0
    assert tuple(ours.shape) == expected.shape
    assert np.abs(ours.detach().double().numpy() - expected).max() <= tolerance * scale


def near(ours: Tensor | None, reference: ArrayLike, tolerance: float) -> None:
    """`close`, relative to the reference's largest magnitude."""
    close(ours, reference, tolerance, relative_to_max=True)


def agreement(ours: Tensor, reference: np.ndarray) -> float:
    """Share of equal labels."""
    return float((ours.numpy() == reference).mean())
