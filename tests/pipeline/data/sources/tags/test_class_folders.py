"""A folder for each class."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.sources.tags.class_folders import read_class_folders

HERE = Path("photos")


def test_folders_are_tags() -> None:
    found = read_class_folders(HERE, ["cat/1.jpg", "dog/x/2.jpg", "none/3.jpg", "top.jpg"])
    assert [(row.image, row.tags, row.split) for row in found.rows] == [
        ("cat/1.jpg", ("cat",), None),
        ("dog/x/2.jpg", ("dog",), None),
        ("none/3.jpg", (), None),
    ]
    assert "a folder for each class: cat, dog" in found.notes[0] and "1 photographs lie in no folder" in found.notes[1]


def test_folders_of_splits_around_them() -> None:
    found = read_class_folders(HERE, ["Train/cat/1.jpg", "validation/cat/2.jpg", "test/cat/3.jpg"])
    assert [(row.tags, row.split) for row in found.rows] == [(("cat",), "train"), (("cat",), "val")]
    assert "1 photographs lie below test" in found.notes[1]


def test_a_class_called_train_is_one() -> None:
    found = read_class_folders(HERE, ["train/1.jpg", "car/2.jpg"])
    assert [row.tags for row in found.rows] == [("train",), ("car",)]


def test_no_folder_is_refused() -> None:
    assert "a table that works" in read_class_folders(HERE, ["1.jpg"]).problems[0]
