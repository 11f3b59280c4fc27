"""What tags cannot teach is said before anything is trained."""

from __future__ import annotations

from pipeline.data.manifest import Manifest, Record
from pipeline.data.warnings import class_table, data_warnings


def manifest(*tags: str, classes: str = "cat dog", val: int = 0) -> Manifest:
    """Training photographs with tags, the last `val` of them for validation."""
    splits = ["train"] * (len(tags) - val) + ["val"] * val
    rows = zip(splits, tags, strict=True)
    records = (Record(str(n), split, f"{n}.jpg", 6, 4, tuple(own.split())) for n, (split, own) in enumerate(rows))
    return Manifest(tuple(records), tuple(classes.split()))


def test_good_data_are_not_warned_of() -> None:
    assert data_warnings(manifest(*["cat"] * 15, *["dog"] * 15)) == []


def test_a_class_in_every_photograph_is_said_with_the_remedy() -> None:
    (warning,) = data_warnings(manifest(*["cat dog"] * 15, *["cat"] * 15))
    assert "every train photograph shows cat" in warning and "without it, with an empty label" in warning
    (warning,) = data_warnings(manifest(*["cat"] * 39, "", classes="cat"))
    assert "39 of 40 train photographs show cat" in warning


def test_a_class_that_most_photographs_show_can_be_learned() -> None:
    assert data_warnings(manifest(*["cat"] * 30, *["cat dog"] * 15, *["dog"] * 15)) == []


def test_few_photographs_are_said() -> None:
    (warning,) = data_warnings(manifest(*["cat"] * 20, *[""] * 10, "dog"))
    assert "fewer than 10 train photographs show dog (1)" in warning
    found = data_warnings(manifest(*["cat"] * 3, *["dog"] * 2))
    assert "show dog (2), cat (3)" in found[0] and "5 train photographs are few" in found[1]


def test_one_class_is_said() -> None:
    (warning,) = data_warnings(manifest(*["cat"] * 20, *[""] * 20, classes="cat"))
    assert "cat is the only class: it is learned against the 20 train photographs without it" in warning


def test_counts_of_classes_begin_with_the_rarest() -> None:
    lines = [line.split() for line in class_table(manifest("cat", "cat dog", "cat", "dog", val=2))]
    assert lines == [["class", "train", "val"], ["dog", "1", "1"], ["cat", "2", "1"]]
