"""A table with a column for each class: 1 where a photograph shows it, 0 or nothing where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.data.sources.tags.rows import EXAMPLE, sorted_tags

YES = ("1", "1.0", "true", "yes", "x")
NO = ("0", "0.0", "-1", "false", "no", "")


def candidates(header: Sequence[str], others: Sequence[str]) -> list[int]:
    """The columns that may be classes: those with a name that are none of the others."""
    return [place for place, name in enumerate(header) if name and name.lower() not in others]


def tags(
    path: Path,
    header: Sequence[str],
    others: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: list[str],
    problems: list[str],
) -> list[tuple[str, ...]]:
    """The classes of every row, named as their columns.

    Args:
        path: of the table, for messages.
        header: names of the columns.
        others: names of columns that are no classes, in lower case.
        rows: cells.
        notes: columns that hold other words are no classes, which is said.
        problems: added where no column is a class.
    """
    places = candidates(header, others)
    values = {place: {cells[place].lower() for cells in rows} for place in places}
    classes = [place for place in places if values[place] <= {*YES, *NO} and values[place] - {""}]
    left = [header[place] for place in places if place not in classes]
    if rows and not classes:
        problems.append(f"{path}: no column holds labels, and none of {', '.join(left)} holds 0 and 1 alone; {EXAMPLE}")
    elif rows:
        names = ", ".join(header[place] for place in classes)
        notes.append(f"{path}: a column of 0 and 1 for each class: {names}")
    if left and classes:
        notes.append(f"{path}: these columns hold other values than 0 and 1, so they are no classes: {', '.join(left)}")
    return [sorted_tags(header[place] for place in classes if cells[place].lower() in YES) for cells in rows]
