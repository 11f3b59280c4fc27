"""A CSV of tags, read tolerantly, checked line by line: header image,labels[,split]; labels parted by |."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.run.errors import UserError

SPLIT_WORDS = ("train", "val")
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class TagRow:
    """One photograph: the line it stands in, its name as written, its sorted tags, its split if given."""

    line: int
    image: str
    tags: tuple[str, ...]
    split: str | None


@dataclass(frozen=True)
class TagTable:
    """What a CSV holds: one row per image, in the order of the file, and all that is odd or wrong in it."""

    rows: list[TagRow]
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_tags(path: Path) -> TagTable:
    """Read a CSV of tags.

    Tolerated: byte order mark, any line ends, blank lines, spaces around fields and tags, quoted fields,
    other columns, repeated rows. Tags get one Unicode form (NFC), so that equal words are equal.

    Raises:
        UserError: the file cannot be opened. Everything else that is wrong is in the table's `problems`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be read ({reason}); it is a CSV with the header image,labels") from error
    if data.startswith(UTF16_MARKS):
        return TagTable([], problems=[f"{path}: is UTF-16; save it as CSV UTF-8"])
    problems: list[str] = []
    rows = list(_numbered(path, _decoded(path, data, problems), problems))
    if not rows:
        return TagTable([], problems=[*problems, f"{path}: is empty; its first line is image,labels"])
    columns = _columns(path, *rows[0], problems)
    if columns and not rows[1:]:
        problems.append(f"{path}: has a header but no rows; write one row for each image")
    parsed = [_row(path, line, cells, columns, problems) for line, cells in rows[1:]] if columns else []
    notes: list[str] = []
    return TagTable(_merged(path, [row for row in parsed if row], notes, problems), notes, problems)


def _decoded(path: Path, data: bytes, problems: list[str]) -> list[str]:
    """The lines as text; one that is not UTF-8 becomes a problem and blank, so that the rest is checked."""
    lines = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(keepends=True), start=1):
        try:
            lines.append(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            byte = line[error.start]
            problems.append(f"{path}, line {number}: byte 0x{byte:02x} is not UTF-8; save the file as CSV UTF-8")
            lines.append("\n")
    return lines


def _numbered(path: Path, lines: list[str], problems: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, with the number of its first line."""
    reader = csv.reader(lines, skipinitialspace=True)
    start = 1
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                yield start, stripped
            start = reader.line_num + 1
    except csv.Error as error:
        problems.append(f"{path}, line {start}: {error}; is a quotation mark left open there?")


def _columns(path: Path, line: int, header: list[str], problems: list[str]) -> list[str]:
    """Column names in lower case; none at all when a needed one is missing or named twice."""
    names = [name.lower() for name in header]
    wrong = [name for name in ("image", "labels") if names.count(name) != 1]
    wrong += ["split"] if names.count("split") > 1 else []
    for name in wrong:
        problems.append(
            f"{path}, line {line}: the header {','.join(header)!r} has {names.count(name)} columns {name!r}; "
            "it must be image,labels or image,labels,split, with commas"
        )
    return [] if wrong else names


def _row(path: Path, line: int, cells: list[str], columns: list[str], problems: list[str]) -> TagRow | None:
    """One row, checked; None when it cannot be used."""
    values = dict(zip(columns, cells, strict=False))
    if len(cells) < len(columns) or any(cells[len(columns) :]):
        faults = [f"{len(cells)} fields where the header has {len(columns)}; labels are separated by |, not commas"]
    else:
        faults = _faults(values)
    problems += [f"{path}, line {line}: {fault}" for fault in faults]
    if faults:
        return None
    split = values["split"].lower() if "split" in values else None
    return TagRow(line, values["image"], tuple(sorted(_tags(values["labels"]))), split)


def _tags(labels: str) -> set[str]:
    return {unicodedata.normalize("NFC", tag.strip()) for tag in labels.split("|")} - {""}


def _faults(values: dict[str, str]) -> list[str]:
    faults = []
    if not values["image"]:
        faults.append("the image name is empty")
    if "split" in values and values["split"].lower() not in SPLIT_WORDS:
        faults.append(f"split {values['split']!r} is not one of {', '.join(SPLIT_WORDS)}")
    for word in [values["image"], *sorted(_tags(values["labels"]))]:
        if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in word):
            shown = word if len(word) <= 60 else word[:60] + "..."
            faults.append(f"{shown!r} holds a control character or a line break; is a quotation mark left open?")
    return faults


def _merged(path: Path, rows: list[TagRow], notes: list[str], problems: list[str]) -> list[TagRow]:
    """One row per image: equal rows count once, rows that contradict each other are a problem."""
    first: dict[str, TagRow] = {}
    repeated = []
    for row in rows:
        earlier = first.setdefault(row.image, row)
        if earlier is row:
            continue
        if (earlier.tags, earlier.split) == (row.tags, row.split):
            repeated.append(str(row.line))
        else:
            problems.append(
                f"{path}, line {row.line}: {row.image!r} stands in line {earlier.line} with other labels or "
                "another split; keep one of the two lines"
            )
    if repeated:
        notes.append(f"{path}: {len(repeated)} rows repeat an earlier one: merged (line {', '.join(repeated[:9])})")
    return list(first.values())
