"""Lists of classes in text files: a class a line, in the order of their labels from 1."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from pipeline.run.errors import UserError

NUMBERING = "classes.txt"
"""Beside masks or maps, it says which class has which number there."""


def read_class_list(path: Path) -> list[str]:
    """The classes of a file; blank lines are left out.

    Raises:
        UserError: it is missing, is not UTF-8, or names a class twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a text file, a class a line") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 ({error.reason}); save it as UTF-8, a class a line") from error
    names = [unicodedata.normalize("NFC", line.strip()) for line in lines if line.strip()]
    if len({*names}) != len(names):
        raise UserError(f"{path}: gives the number of each class in the masks, a class a line; one stands there twice")
    return names


def numbered(folder: Path, classes: Sequence[str]) -> list[str]:
    """The classes as the files of a folder number them, from 1: as its `classes.txt` says, else those given.

    Raises:
        UserError: the list cannot be read, or lacks one of the classes.
    """
    path = folder / NUMBERING
    if not path.is_file():
        return list(classes)
    names = read_class_list(path)
    if missing := [name for name in classes if name not in names]:
        raise UserError(
            f"{path}: gives the number of each class in the masks, a class a line; {', '.join(missing)} are not there"
        )
    return names
