"""Folders of files that other tools made: saliency maps, activation maps, masks, segments.

DVC does not know them. `configure`, which runs every time, hands the hash of a folder to the stages that read it, and
these stop where the files have become others. A file is named after a photograph's id. `classes.txt`, a class a line,
may lie beside files that number classes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from models.knobs import Knobs
from pipeline.data.class_lists import NUMBERING
from pipeline.run.errors import UserError
from pipeline.run.files import expanded, inside, sha256

PNG, ARRAYS = (".png",), (".npy", ".npz")


class OutsideFiles(Knobs):
    """What stages are told of such a folder: where it lies, and the hash of its files."""

    folder: str
    sha256: str

    @property
    def path(self) -> Path:
        """The folder."""
        return expanded(self.folder)

    def check_unchanged(self, knob: str) -> None:
        """Compare the files with those that `configure` saw.

        Args:
            knob: that names the folder.

        Raises:
            UserError: they are others.
        """
        if folder_hash(self.path) != self.sha256:
            raise UserError(
                f"{knob} = {self.folder}: the files have changed since `configure` looked at them; run `dvc repro`, "
                "which looks at them again"
            )


def outside_files(folder: str) -> OutsideFiles:
    """The folder that a knob names, as it is now."""
    return OutsideFiles(folder=folder, sha256=folder_hash(expanded(folder)))


def folder_hash(folder: Path) -> str:
    """SHA-256 over the names and hashes of those files in a folder that are read: pictures, arrays, list of classes."""
    with ThreadPoolExecutor() as pool:
        paths = sorted(path for path in folder.glob("*") if path.suffix in PNG + ARRAYS or path.name == NUMBERING)
        lines = [f"{path.name} {digest}\n" for path, digest in zip(paths, pool.map(sha256, paths), strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def listing_hash(folders: Sequence[Path]) -> str:
    """SHA-256 over paths, sizes and times of all files below some folders, but for those of this project.

    For large folders, whose contents a stage hashes itself: what it reads changes this listing, and so makes it run.
    """
    digest, own = hashlib.sha256(), Path.cwd().resolve()
    for folder in folders:
        for place, inner, files in os.walk(folder):
            inner[:] = sorted(name for name in inner if Path(place, name).resolve() != own)
            for name in sorted(files):
                with suppress(OSError):  # a link to nothing: who reads it says so
                    state = Path(place, name).stat()
                    line = f"{os.path.relpath(Path(place, name), folder)} {state.st_size} {state.st_mtime_ns}\n"
                    digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def outside_file(folder: Path, name: str, endings: Sequence[str]) -> Path | None:
    """The file of a photograph by its id, the first that is there; None where there is none.

    Raises:
        UserError: it is a link that leaves the folder.
    """
    paths = (inside(folder, f"{name}{ending}") for ending in endings)
    return next((path for path in paths if path.is_file()), None)


def stated(files: OutsideFiles) -> str:
    """The folder's own name and the start of the hash, as details state it: where it lies is the machine's business."""
    return f"{expanded(files.folder).name}, {files.sha256[:12]}"
