"""Rows of tags, which every layout is turned into, and what is wrong with some whatever the layout."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

EXAMPLE = """a table that works:
      image,labels
      IMG_0001.jpg,cat|dog
      holiday/IMG_0002.jpg,"""
"""What every refusal of a layout shows: three lines, the last one of a photograph that shows none of the classes."""

SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}


@dataclass(frozen=True)
class TagRow:
    """One photograph: where it stands, its name as written, its sorted tags, its split if given."""

    place: str
    image: str
    tags: tuple[str, ...]
    split: str | None = None


@dataclass(frozen=True)
class TagTable:
    """What is known of the tags: one row per image, in the order of the file, and all that is odd or wrong in it."""

    rows: list[TagRow]
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def one_form(text: str) -> str:
    """A word without spaces around it, in one Unicode form (NFC), so that equal words are equal."""
    return unicodedata.normalize("NFC", text.strip())


def sorted_tags(words: Iterable[str]) -> tuple[str, ...]:
    """Tags in one form, each once, in order; empty words are none."""
    return tuple(sorted({one_form(word) for word in words} - {""}))


def faults(row: TagRow) -> list[str]:
    """What makes a row useless."""
    found = [] if row.image else ["the image name is empty"]
    if row.split not in (None, *SPLIT_WORDS.values()):
        found.append(f"split {row.split!r} is not one of train, val")
    for word in [row.image, *row.tags]:
        if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in word):
            shown = word if len(word) <= 60 else word[:60] + "..."
            found.append(f"{shown!r} holds a control character or a line break; is a quotation mark left open?")
        elif "|" in word:
            found.append(f"{word!r} holds |, which parts labels; take it out")
    return found


def merged(path: Path, rows: list[TagRow], notes: list[str], problems: list[str]) -> list[TagRow]:
    """One row per image: equal rows count once, rows with one tag each are added up, others contradict each other."""
    one_tag_each = all(len(row.tags) <= 1 for row in rows)
    first: dict[str, TagRow] = {}
    repeated, added = [], []
    for row in rows:
        earlier = first.setdefault(row.image, row)
        if earlier is row:
            continue
        if (earlier.tags, earlier.split) == (row.tags, row.split):
            repeated.append(row.place)
        elif one_tag_each and earlier.tags and row.tags and earlier.split == row.split:
            first[row.image] = replace(earlier, tags=tuple(sorted({*earlier.tags, *row.tags})))
            added.append(row.image)
        else:
            problems.append(
                f"{path}, {row.place}: {row.image!r} stands in {earlier.place} with other labels or another split; "
                "keep one of the two"
            )
    if repeated:
        notes.append(f"{path}: {len(repeated)} rows repeat an earlier one: merged ({', '.join(repeated[:9])})")
    if added:
        notes.append(
            f"{path}: one row per tag: the tags of {len({*added})} photographs stand in several rows, such as "
            f"{added[0]!r} ({', '.join(first[added[0]].tags)}); they are added up"
        )
    return list(first.values())
