"""Masks that can be read and hardly mean what they say."""

from __future__ import annotations

from pipeline.data.manifest import Record
from pipeline.data.mask_checks import MaskLabels, mask_doubts
from pipeline.data.sources.source import Source


def record(name: str, *tags: str) -> Record:
    return Record(name, "train", f"{name}.jpg", 6, 4, tags)


def doubts(*pairs: tuple[Record, set[int]]) -> str:
    records = [one for one, _ in pairs]
    source = Source(records, ["cat", "dog"], {one.id: f"{one.id}.png" for one in records})
    return "\n".join(mask_doubts(records, [MaskLabels(labels, labels) for _, labels in pairs], source))


def test_good_masks_are_not_doubted() -> None:
    assert not doubts((record("a", "cat"), {0, 1, 255}), (record("b", "cat", "dog"), {2}), (record("c"), {0, 255}))


def test_classes_that_no_tag_names_are_said() -> None:
    found = doubts((record("a", "cat"), {0, 2}), (record("b", "dog"), {0, 2}))
    assert "1 of 2 masks show classes that their photographs' tags do not name, such as a.png: dog (tags: cat)" in found


def test_some_binary_masks_are_said() -> None:
    found = doubts((record("a", "cat"), {0, 255}), (record("b", "dog"), {0, 2}))
    assert "1 of 2 masks hold 0 and 255 alone though tags name a class, such as a.png" in found
