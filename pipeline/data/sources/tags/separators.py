"""Which sign parts the labels of a cell: |, or a comma or semicolon where the other cells show that it does.

A cell `cat, dog` is never taken for one class in silence: the sign is recognised, or the table is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from yaml import YAMLError

from pipeline.config.yaml_text import parsed
from pipeline.data.sources.tags.rows import one_form, sorted_tags

SIGNS = {",": "commas", ";": "semicolons"}


def parted(path: Path, cells: Sequence[str], notes: list[str], problems: list[str]) -> list[tuple[str, ...]]:
    """The tags of every cell.

    Args:
        path: of the table, for messages.
        cells: the labels of each photograph as written.
        notes: what was recognised is added.
        problems: what cannot be decided is added.
    """
    if (lists := _lists(cells)) is not None:
        return lists
    if any("|" in cell for cell in cells):
        found = [sorted_tags(cell.split("|")) for cell in cells]
        _commas(path, found, notes, problems)
        _made_of_others(path, found, notes)
        return found
    used = [sign for sign in SIGNS if any(sign in cell for cell in cells)]
    if len(used) == 1 and _parts_stand_elsewhere(cells, used[0]):
        example = next(cell for cell in cells if used[0] in cell)
        notes.append(f"{path}: labels are separated by {SIGNS[used[0]]}, as in {example!r}")
        return [sorted_tags(cell.split(used[0])) for cell in cells]
    if used:
        example = next(cell for cell in cells if used[0] in cell)
        problems.append(
            f"{path}: is the label {example!r} one class or several? Write {'|'.join(_parts(example))} for several, "
            f"'{example}|' for one; labels are separated by |"
        )
    found = [sorted_tags([cell]) for cell in cells]
    _made_of_others(path, found, notes)
    return found


def _lists(cells: Sequence[str]) -> list[tuple[str, ...]] | None:
    """Tags of cells that are lists as Python and JSON write them; None where they are not."""
    filled = [cell for cell in cells if cell]
    if not filled or not all(cell.startswith("[") and cell.endswith("]") for cell in filled):
        return None
    try:
        lists = [parsed(cell) if cell else [] for cell in cells]
    except YAMLError:
        return None
    if not all(isinstance(words, list) and all(isinstance(word, str) for word in words) for words in lists):
        return None
    return [sorted_tags(words) for words in lists]


def _parts(cell: str) -> list[str]:
    return [part for part in map(one_form, re.split("[,;]", cell)) if part]


def _parts_stand_elsewhere(cells: Sequence[str], sign: str) -> bool:
    """Whether some part of a cell is the whole of another, or a part of another: then the sign parts labels."""
    different = {one_form(cell) for cell in cells}
    places = Counter(part for cell in different for part in {*map(one_form, cell.split(sign))} - {""})
    return any(places[part] > 1 for cell in different if sign in cell for part in map(one_form, cell.split(sign)))


def _commas(path: Path, found: Sequence[tuple[str, ...]], notes: list[str], problems: list[str]) -> None:
    """Labels that hold a comma or a semicolon although | parts labels: wrong where one of their parts is a label."""
    known = {tag for tags in found for tag in tags}
    for tag in sorted(known):
        if len(parts := {*_parts(tag)}) > 1:
            meant = problems if parts & known else notes
            meant.append(f"{path}: the label {tag!r} holds a comma or a semicolon; labels are separated by |")


def _made_of_others(path: Path, found: Sequence[tuple[str, ...]], notes: list[str]) -> None:
    """Labels such as `cat dog` and `cat/dog` beside `cat` and `dog`."""
    known = {tag for tags in found for tag in tags}
    for tag in sorted(known):
        words = {*re.split(r"[\s/+&]+", tag)} - {""}
        if len(words) > 1 and words <= known:
            notes.append(f"{path}: the label {tag!r} is made of others; if it means several, part them by |")
