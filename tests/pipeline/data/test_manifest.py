"""The manifest: read as written, its labels, batches of one size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.data.manifest import PREPARED, Manifest, Record, load_manifest, same_size_batches, save_manifest
from pipeline.run.errors import UserError

RECORDS = (
    Record("a 1", "train", "a 1.png", 6, 4, ("dog", "cat"), "0" * 64),
    Record("ü__b", "val", "ü/b.png", 4, 6, (), "1" * 64),
    Record("NA", "train", "NA", 6, 4, ("dog",), "2" * 64),
)
MANIFEST = Manifest(RECORDS, ("cat", "dog"))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    save_manifest(tmp_path, MANIFEST)
    assert load_manifest(tmp_path) == MANIFEST
    assert [record.id for record in load_manifest(tmp_path).split("train").records] == ["a 1", "NA"]


def test_labels_follow_the_order_of_classes() -> None:
    assert [MANIFEST.class_ids(record) for record in RECORDS] == [[1, 2], [], [2]]
    np.testing.assert_array_equal(MANIFEST.tag_matrix(), [[1, 1], [0, 0], [0, 1]])
    assert MANIFEST.tag_matrix().dtype == np.float32
    assert Manifest((), ("cat",)).tag_matrix().shape == (0, 1)


def test_batches_hold_photographs_of_one_size() -> None:
    found = list(same_size_batches(RECORDS * 3, 4))
    assert [len(batch) for batch in found] == [4, 2, 3]
    assert all(len({record.size for record in batch}) == 1 for batch in found)
    assert found == list(same_size_batches(RECORDS[::-1] * 3, 4))


def test_missing_and_damaged_manifests_name_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="dvc repro prepare_data"):
        load_manifest()
    save_manifest(PREPARED, MANIFEST)
    (PREPARED / "manifest.csv").write_text("id,split\n")
    with pytest.raises(UserError, match=r"has columns \['id', 'split'\]"):
        load_manifest()
    header = b"id,split,image,width,height,tags,sha256\n"
    for damaged in (b"", b"\xff\xfe", header + b"a,train,a.png,,4,,\n", header + b"a,train,a.png,3,4,,01"):
        (PREPARED / "manifest.csv").write_bytes(damaged)
        with pytest.raises(UserError, match=r"manifest\.csv is damaged"):
            load_manifest()


@pytest.mark.parametrize("content", ["{}", "[]", "null", '"cat"', "[1]"])
def test_classes_that_are_no_list_of_names_are_damaged(tmp_path: Path, content: str) -> None:
    save_manifest(tmp_path, Manifest((), ("cat",)))
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(UserError, match=r"classes\.json is damaged"):
        load_manifest(tmp_path)
