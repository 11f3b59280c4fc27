"""A table as text (CSV, TSV): one column of labels, or one column of 0 and 1 for each class.

    image,labels,split        filename;tags            image,cat,dog
    a.jpg,cat|dog,train       a.jpg;cat                a.jpg,1,1
    b.jpg,,val                a.jpg;dog                b.jpg,0,0

Tolerated: byte order mark, any line ends, blank lines, spaces around fields and tags, quoted fields, other columns,
repeated rows, one row for each tag.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.data.sources.tags import one_hot
from pipeline.data.sources.tags.rows import EXAMPLE, SPLIT_WORDS, TagRow, TagTable, faults, merged
from pipeline.data.sources.tags.separators import parted
from pipeline.data.sources.tags.text import Row, lines_of, rows_of
from pipeline.run.errors import UserError

IMAGE = ("image", "filename", "file", "path", "file_name", "image_name")
LABELS = ("labels", "tags", "label", "classes", "tag", "class")
"""Names of columns; the first one that a header has counts."""
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")


def read_table(path: Path) -> TagTable:
    """Read a table.

    Raises:
        UserError: the file cannot be opened. Everything else that is wrong is in the table's `problems`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); {EXAMPLE}") from error
    if data.startswith(WORKBOOKS):
        return TagTable([], problems=[f"{path}: is a workbook; save its sheet as CSV UTF-8"])
    notes: list[str] = []
    problems: list[str] = []
    rows = rows_of(path, lines_of(path, data, notes, problems), _merit, notes, problems)
    if not rows:
        return TagTable([], problems=[*problems, f"{path}: is empty; {EXAMPLE}"])
    (line, header), body = rows[0], rows[1:]
    if faulty := _header_faults(header):
        return TagTable([], notes, [*problems, *(f"{path}, line {line}: {fault}" for fault in faulty)])
    if not body:
        problems.append(f"{path}: has a header but no rows; {EXAMPLE}")
    whole = [row for row in body if _is_whole(path, row, header, problems)]
    found = _tag_rows(path, header, whole, notes, problems)
    return TagTable(merged(path, found, notes, problems), notes, problems)


def _names(header: Sequence[str]) -> list[str]:
    return [name.lower() for name in header]


def _column(header: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The name of a column that a header has."""
    return next((name for name in wanted if name in _names(header)), None)


def _merit(header: Sequence[str]) -> int:
    """How many of the two needed columns a header has."""
    return sum(_column(header, wanted) is not None for wanted in (IMAGE, LABELS))


def _header_faults(header: list[str]) -> list[str]:
    """What makes a header useless."""
    shown, names = f"the header {', '.join(header)!r}", _names(header)
    image, labels = _column(header, IMAGE), _column(header, LABELS)
    if image is None:
        return [f"{shown} names no column of photographs ({', '.join(IMAGE)}); {EXAMPLE}"]
    twice = [name for name in (image, labels, "split") if name and names.count(name) > 1]
    if twice:
        return [f"{shown} has {names.count(name)} columns {name!r}; keep one" for name in twice]
    if labels is None and not one_hot.candidates(header, (image, "split")):
        return [f"{shown} names no column of labels ({', '.join(LABELS)}), nor one for each class; {EXAMPLE}"]
    return []


def _is_whole(path: Path, row: Row, header: list[str], problems: list[str]) -> bool:
    """Whether a row has as many cells as the header."""
    line, cells = row
    if len(cells) >= len(header) and not any(cells[len(header) :]):
        return True
    problems.append(
        f"{path}, line {line}: {len(cells)} fields where the header has {len(header)}; several labels in one field are "
        "separated by |, and a field that holds the sign between fields stands in quotation marks"
    )
    return False


def _tag_rows(path: Path, header: list[str], rows: list[Row], notes: list[str], problems: list[str]) -> list[TagRow]:
    """The rows that are fit for use."""
    names = _names(header)
    image, labels = (_column(header, wanted) for wanted in (IMAGE, LABELS))
    assert image is not None
    if labels is not None:
        tags = parted(path, [cells[names.index(labels)] for _, cells in rows], notes, problems)
    else:
        tags = one_hot.tags(path, header, (image, "split"), [cells for _, cells in rows], notes, problems)
    found = []
    for (line, cells), own in zip(rows, tags, strict=True):
        word = cells[names.index("split")].lower() if "split" in names else None
        split = None if word is None else SPLIT_WORDS.get(word, word)
        row = TagRow(f"line {line}", cells[names.index(image)], own, split)
        wrong = faults(row)
        problems += [f"{path}, {row.place}: {fault}" for fault in wrong]
        found += [] if wrong else [row]
    return found
