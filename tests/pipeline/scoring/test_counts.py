"""Counts of photographs: what is written is read, the same bytes, no pickle, their sum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.run.errors import UserError
from pipeline.run.files import sha256
from pipeline.scoring.counts import Counts, load_counts, save_counts


def some_counts(matrices: list[np.ndarray]) -> Counts:
    counts = Counts()
    for number, matrix in enumerate(matrices):
        counts.add(f"ü {number}", matrix)
    return counts


@given(st.lists(st.lists(st.sampled_from([0, 0, 3, 2**40]), min_size=9, max_size=9), max_size=4))
def test_what_is_written_is_read_and_sums_up(tmp_path_factory: pytest.TempPathFactory, cells: list[list[int]]) -> None:
    matrices = [np.array(values, dtype=np.int64).reshape(3, 3) for values in cells]
    counts, path = some_counts(matrices), tmp_path_factory.mktemp("counts") / "x.npz"
    save_counts(path, counts)
    found = load_counts(path)
    assert found.ids == counts.ids and len(found.cells) == len(matrices)
    np.testing.assert_array_equal(found.table(), counts.table())
    np.testing.assert_array_equal(found.total(3), sum(matrices, np.zeros((3, 3), dtype=np.int64)))
    for cell, matrix in zip(found.cells, matrices, strict=True):
        rebuilt = np.zeros_like(matrix)
        rebuilt[cell[:, 0], cell[:, 1]] = cell[:, 2]
        np.testing.assert_array_equal(rebuilt, matrix)


def test_same_counts_give_the_same_bytes_without_pickle(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_counts(tmp_path / f"{name}.npz", some_counts([np.eye(3, dtype=np.int64)] * 2))
    assert sha256(tmp_path / "a.npz") == sha256(tmp_path / "b.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["ids"].dtype.kind == "U" and arrays["pixels"].dtype == np.int64
        assert set(arrays) == {"ids", "photograph", "true", "predicted", "pixels"}


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_damaged_counts_are_said(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.npz holds no counts"):
        load_counts(tmp_path / "x.npz")
