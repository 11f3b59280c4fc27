"""The manifest: one row for each photograph, whatever the data set; the only description of data that stages read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.labels import IGNORE
from pipeline.run.errors import UserError
from pipeline.run.files import read_json, write_json, write_text

PREPARED = Path("data/prepared")
MANIFEST, TEST = "manifest.csv", "test.csv"
COLUMNS = ["id", "split", "image", "width", "height", "tags", "sha256"]


@dataclass(frozen=True)
class Record:
    """One photograph: a string id, its split, its path below the data root, its upright size, its tags."""

    id: str
    split: str
    image: str
    width: int
    height: int
    tags: tuple[str, ...]
    sha256: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width


@dataclass(frozen=True)
class Manifest:
    """All photographs, and the foreground classes in label order (class k of a mask is `classes[k - 1]`)."""

    records: tuple[Record, ...]
    classes: tuple[str, ...]

    def split(self, name: str) -> Manifest:
        """The photographs of one split, in order."""
        return replace(self, records=tuple(record for record in self.records if record.split == name))

    def class_ids(self, record: Record) -> list[int]:
        """Mask labels (1-based, ascending) of a photograph's tags."""
        return [number for number, name in enumerate(self.classes, start=1) if name in record.tags]

    def tag_matrix(self) -> NDArray[np.float32]:
        """(images, classes) of 0 and 1."""
        rows = [[name in record.tags for name in self.classes] for record in self.records]
        return np.array(rows, dtype=np.float32).reshape(len(self.records), len(self.classes))


def same_size_batches(records: Sequence[Record], most: int) -> Iterator[list[Record]]:
    """Photographs of equal size together, at most so many at once; the order depends on the records alone."""
    by_size = sorted(records, key=lambda record: (record.size, record.id))
    for _, group in itertools.groupby(by_size, key=lambda record: record.size):
        members = list(group)
        yield from (members[start : start + most] for start in range(0, len(members), most))


def save_manifest(folder: Path, manifest: Manifest, test: Sequence[Record] = ()) -> None:
    """Write `manifest.csv`, `test.csv` and `classes.json`; bytes depend on the content alone.

    Args:
        folder: where they go.
        manifest: the training and the validation split.
        test: photographs that are predicted and never trained on or scored here. They have a file of their own, so
            that no training depends on it.
    """
    for table, records in ((MANIFEST, manifest.records), (TEST, test)):
        rows = [[*(getattr(r, c) for c in COLUMNS[:5]), "|".join(r.tags), r.sha256] for r in records]
        text = pd.DataFrame(rows, columns=COLUMNS).to_csv(index=False, lineterminator="\n")
        write_text(folder / table, text)
    write_json(folder / "classes.json", list(manifest.classes))


def load_test(folder: Path = PREPARED) -> Manifest:
    """The photographs of the test split, without tags; none where the data set has none or they are not asked for.

    Raises:
        UserError: `prepare_data` has not run, or its output is damaged.
    """
    return load_manifest(folder, TEST)


def load_manifest(folder: Path = PREPARED, name: str = MANIFEST) -> Manifest:
    """Read what `prepare_data` wrote.

    Raises:
        UserError: it has not run, or its output is damaged.
    """
    classes, path = read_json(folder / "classes.json", "prepare_data"), folder / name
    try:
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            raise ValueError("its end is missing")
        table = pd.read_csv(StringIO(text), dtype=str, keep_default_na=False)
        if list(table.columns) != COLUMNS:
            raise UserError(f"{path} has columns {list(table.columns)}; run `dvc repro -f prepare_data`")
        columns = zip(*(table[name] for name in COLUMNS), strict=True)
        records = tuple(
            Record(name, split, image, int(width), int(height), tuple(filter(None, tags.split("|"))), digest)
            for name, split, image, width, height, tags, digest in columns
        )
    except FileNotFoundError as error:
        raise UserError(f"{path} not found; run `dvc repro prepare_data`") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); run `dvc repro -f prepare_data`") from error
    if not isinstance(classes, list) or not all(isinstance(one, str) for one in classes) or not classes:
        raise UserError(f"{folder / 'classes.json'} is damaged (no list of names); run `dvc repro -f prepare_data`")
    return Manifest(records, tuple(classes))


def save_ground_truth(
    folder: Path,
    masks: dict[str, str],
    label_map: Sequence[int] | None,
    reader: str = "png",
    tune: Sequence[str] = (),
    hashes: Mapping[str, str] | None = None,
    background: bool = True,
) -> None:
    """Write which mask file belongs to which photograph; read by `evaluate` and `report` alone.

    Args:
        folder: where `ground_truth.json` goes.
        masks: path of the file that holds the mask, by photograph id; what it is relative to is the reader's to say.
        label_map: 256 labels of this project, indexed by the label in the file; None where they are equal.
        reader: how masks are read from these files, a name in `pipeline.data.ground_truth.READERS`.
        hashes: SHA-256 of the mask files, by their path, so that a changed mask is a changed file here.
        tune: ids of the training photographs whose masks may choose something (see `pipeline.data.tune`).
        background: whether pixels may belong to no class; where not, those of label 0 are void.
    """
    labels = list(label_map) if label_map is not None else None
    if not background:
        labels = [label or IGNORE for label in labels or range(256)]
    content = {"masks": masks, "label_map": labels, "tune": list(tune), "sha256": dict(hashes or {})}
    other: dict[str, Any] = {} if reader == "png" else {"reader": reader}
    other |= {} if background else {"background": False}
    write_json(folder / "ground_truth.json", content | other)
