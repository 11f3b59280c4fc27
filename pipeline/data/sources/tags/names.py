"""Photographs of a folder, found by names as people write them: other case, other Unicode form, other extension."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from pipeline.data.images import SUFFIXES


def photographs_below(folder: Path, without: Sequence[Path] = ()) -> list[str]:
    """Paths of the photographs in a folder and in its subfolders, relative to it, in order.

    Hidden files and folders, and links to folders, are left out.

    Args:
        folder: where to look.
        without: folders below it that hold something else, such as masks.
    """
    left_out = {path.resolve() for path in without}
    found = []
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = [name for name in folders if name[0] != "." and (here / name).resolve() not in left_out]
        kept = (name for name in files if name[0] != "." and PurePosixPath(name).suffix.lower() in SUFFIXES)
        found += [(here / name).relative_to(folder).as_posix() for name in kept]
    return sorted(found)


class Names:
    """Finds photographs by names that are nearly theirs."""

    def __init__(self, files: Iterable[str]) -> None:
        self.whole: dict[str, list[str]] = {}
        self.stems: dict[str, list[str]] = {}
        for file in files:
            self.whole.setdefault(_folded(file), []).append(file)
            self.stems.setdefault(_folded(_stem(file)), []).append(file)

    def like(self, name: str) -> list[str]:
        """The photographs that a name may mean: of the same letters, else without or with another extension."""
        found = self.whole.get(_folded(name)) or self.stems.get(_folded(name))
        if not found and PurePosixPath(name).suffix.lower() in SUFFIXES:
            found = self.stems.get(_folded(_stem(name)))
        return found or []


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix() if PurePosixPath(name).name else name


def _folded(name: str) -> str:
    """A path in one Unicode form, without `./` before it, whatever the case of its letters."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).removeprefix("./")
