"""Collects the reference arrays that the parity tests compare with."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import GOLDEN

GOLDEN_DIR = Path(os.environ.get("GOLDEN_DIR", GOLDEN))


def golden(prefix: str) -> list[Any]:
    """One pytest parameter per reference file whose name starts with `prefix`; the file name is the test id.

    A prefix without a file gives one parameter on which `load` fails, so that a renamed or lost file cannot
    pass unseen.
    """
    paths = sorted(GOLDEN_DIR.glob(f"{prefix}*.npz")) or [GOLDEN_DIR / f"{prefix}-no-file.npz"]
    return [pytest.param(path, id=path.stem) for path in paths]


def load(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of one reference file, without pickles."""
    if not path.is_file():
        pytest.fail(f"no reference file {path.name.removesuffix('-no-file.npz')}*.npz in {GOLDEN_DIR}")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
