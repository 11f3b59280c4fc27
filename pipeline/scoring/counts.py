"""The confusion matrix of every photograph, sparse: what intervals and scores by object size are computed from.

One small `.npz` without pickle holds them: the ids, and for each cell that is not 0 the photograph's number, true
label, predicted label and pixels. Same content, same bytes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.run.errors import UserError
from pipeline.run.files import write_atomic
from pipeline.scoring.scores import Confusion

COUNTS = Path("data/counts")
CELLS = {"photograph": np.uint32, "true": np.uint8, "predicted": np.uint8, "pixels": np.int64}


@dataclass
class Counts:
    """Confusion matrices of photographs.

    Attributes:
        ids: of the photographs, in the order of counting.
        cells: rows (true label, predicted label, pixels) of each photograph, those without a pixel left out.
    """

    ids: list[str] = field(default_factory=list)
    cells: list[NDArray[np.int64]] = field(default_factory=list)

    def add(self, name: str, confusion: Confusion) -> None:
        """Keep the matrix of one photograph."""
        true, predicted = np.nonzero(confusion)
        self.ids.append(name)
        self.cells.append(np.stack([true, predicted, confusion[true, predicted]], axis=1).astype(np.int64))

    def table(self) -> NDArray[np.int64]:
        """Rows (photograph's number, true label, predicted label, pixels)."""
        numbers = np.repeat(np.arange(len(self.cells)), [len(cells) for cells in self.cells])
        rows = np.concatenate([np.zeros((0, 3), dtype=np.int64), *self.cells])
        return np.concatenate([numbers[:, None], rows], axis=1)

    def total(self, labels: int) -> Confusion:
        """The confusion matrix of all photographs together."""
        _, true, predicted, pixels = self.table().T
        confusion = np.zeros((labels, labels), dtype=np.int64)
        np.add.at(confusion, (true, predicted), pixels)
        return confusion


def counts_path(folder: Path, artefact: str) -> Path:
    """Where the counts of an artefact lie."""
    return folder / f"{artefact}.npz"


def save_counts(path: Path, counts: Counts) -> None:
    """Write counts, atomically."""
    columns = dict(zip(CELLS, counts.table().T, strict=True))
    arrays = {name: column.astype(CELLS[name]) for name, column in columns.items()}
    ids = np.array(counts.ids, dtype=np.str_)
    write_atomic(path, lambda temporary: np.savez_compressed(temporary, allow_pickle=False, ids=ids, **arrays))


def load_counts(path: Path) -> Counts:
    """Read what `save_counts` wrote.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            ids = [str(name) for name in arrays["ids"]]
            photograph = arrays["photograph"].astype(np.int64)
            rows = np.stack([arrays[name].astype(np.int64) for name in list(CELLS)[1:]], axis=1)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} holds no counts ({error}); delete it and let evaluate run again") from error
    return Counts(ids, split_rows(rows, photograph, len(ids)))


def split_rows(
    rows: NDArray[np.int64], photograph: Sequence[int] | NDArray[np.int64], count: int
) -> list[NDArray[np.int64]]:
    """Rows by the photograph's number, which rises."""
    return np.split(rows, np.searchsorted(photograph, np.arange(1, count))) if count else []
