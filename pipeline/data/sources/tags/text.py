"""From the bytes of a table to its cells: encoding and the sign between cells are recognised."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from pathlib import Path

UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
EXCEL = "cp1252"  # what Excel writes as CSV on a Windows of Western Europe or America
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
SEPARATOR_LINE = re.compile(r'^"?sep=([,;\t])"?$', re.IGNORECASE)  # Excel's own first line

Row = tuple[int, list[str]]
"""The number of a row's first line, and its cells."""


def lines_of(path: Path, data: bytes, notes: list[str], problems: list[str]) -> list[str]:
    """The lines of a table in UTF-8, UTF-16 with its mark, or Windows-1252.

    A line that is none of them becomes a problem and blank, so that the rest is checked.
    """
    if data.startswith(UTF16_MARKS):
        try:
            data = data.decode("utf-16").encode("utf-8")
        except UnicodeError as error:
            problems.append(f"{path}: begins as UTF-16 and goes on otherwise ({error}); save it as CSV UTF-8")
            return []
    raw = data.removeprefix(b"\xef\xbb\xbf").splitlines(keepends=True)
    utf8 = [_decoded(line, "utf-8") for line in raw]
    broken = [line for line, text in zip(raw, utf8, strict=True) if text is None]
    accents_are_utf8 = any(text is not None and not text.isascii() for text in utf8)
    excel = [] if accents_are_utf8 else [text for line in broken if (text := _decoded(line, EXCEL)) is not None]
    if excel and len(excel) == len(broken):
        accented = next(word for word in re.split(r"[\s,;|\"]+", excel[0]) if not word.isascii())
        notes.append(f"{path}: is not UTF-8; read as Windows-1252: is {accented!r} right? If not, save it as CSV UTF-8")
        return [text if text is not None else line.decode(EXCEL) for line, text in zip(raw, utf8, strict=True)]
    for number, (line, text) in enumerate(zip(raw, utf8, strict=True), start=1):
        if text is None:
            problems.append(f"{path}, line {number}: {_bad_byte(line)} is not UTF-8; save the file as CSV UTF-8")
    return [text or "\n" for text in utf8]


def _decoded(line: bytes, encoding: str) -> str | None:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError:
        return None


def _bad_byte(line: bytes) -> str:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"byte 0x{line[error.start]:02x}"
    raise AssertionError("the line is UTF-8")


def rows_of(
    path: Path, lines: list[str], merit: Callable[[list[str]], int], notes: list[str], problems: list[str]
) -> list[Row]:
    """The rows that are not blank, header first; cells have no spaces around them.

    Args:
        path: for messages.
        lines: with their ends.
        merit: how much a header makes sense; the sign between cells is the one whose header makes most.
        notes: signs other than commas are said.
        problems: an open quotation mark is added.
    """
    if lines and (told := SEPARATOR_LINE.match(lines[0].strip())):
        lines, delimiters = ["\n", *lines[1:]], [told[1]]
    else:
        delimiters = [*DELIMITERS]

    def worth(delimiter: str) -> tuple[int, int]:
        _, header = next(_numbered(path, lines, delimiter, []), (0, []))
        return merit(header), len(header)

    delimiter = max(delimiters, key=worth)
    rows = list(_numbered(path, lines, delimiter, problems))
    if delimiter != "," and len(rows[0][1] if rows else []) > 1:
        notes.append(f"{path}: its cells are separated by {DELIMITERS.get(delimiter, repr(delimiter))}")
    return rows


def _numbered(path: Path, lines: list[str], delimiter: str, problems: list[str]) -> Iterator[Row]:
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    start = 1
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                yield start, stripped
            start = reader.line_num + 1
    except csv.Error as error:
        problems.append(f"{path}, line {start}: {error}; is a quotation mark left open there?")
