"""Writing files so that a reader never sees half of one, and reading paths so that none leaves its root."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from configparser import ConfigParser
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.run.errors import UserError

UNFINISHED = ".unfinished"


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary name beside `path`, flush it to disk, and rename it into place.

    What a killed process leaves is hidden, and git and DVC ignore it by its name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = f"{UNFINISHED}{path.suffix}"
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=suffix)
    os.close(descriptor)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends, atomically."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline="\n"))


def write_json(path: Path, content: Any) -> None:
    """Write JSON whose bytes depend on the content alone.

    Raises:
        ValueError: the content holds NaN or an infinity.
    """
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path, producer: str, keys: Sequence[str] = ()) -> Any:
    """Read JSON that the stage `producer` writes.

    Args:
        path: of the file.
        producer: a stage, for messages.
        keys: what the content has at least, where it is a mapping that needs some.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} not found; the stage {producer} writes it: run `dvc repro {producer}`") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}); run `dvc repro --force {producer}`") from error
    if missing := [key for key in keys if not isinstance(content, dict) or key not in content]:
        raise UserError(f"{path} is damaged ({missing[0]} is missing); run `dvc repro --force {producer}`")
    return content


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place when the block ends well; nothing changes otherwise.

    What a killed process left of the same folder is removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(path)
    temporary, lock = _locked_folder(path)
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(lock)


def _locked_folder(path: Path) -> tuple[Path, int]:
    """A new temporary folder beside `path`, and the descriptor that locks it until it is closed or the process dies."""
    while True:
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED))
        with suppress(FileNotFoundError):
            lock = os.open(temporary, os.O_RDONLY)
            with suppress(OSError):  # no network file system locks folders: there nobody removes them either
                fcntl.flock(lock, fcntl.LOCK_EX)
            if temporary.exists():  # another process may have taken it for a dead one's before it was locked
                return temporary, lock
            os.close(lock)


def _remove_unfinished(path: Path) -> None:
    """Remove temporary folders beside `path` whose lock, which dies with a process, is free."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}.*{UNFINISHED}"):
        with suppress(FileNotFoundError):  # its process put it into place just now
            lock = os.open(folder, os.O_RDONLY)
            with suppress(OSError):  # it is locked, or cannot be
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def expanded(path: str) -> Path:
    """A path that a user has typed; `~` is the home folder."""
    with suppress(RuntimeError):  # nobody has the name behind `~`
        return Path(path).expanduser()
    return Path(path)


def inside(root: Path, relative: str) -> Path:
    """The path `relative` under `root`.

    Links that DVC itself made (`cache.type symlink`) may lead into its cache.

    Raises:
        UserError: it is absolute, or leaves the root, also through a symbolic link.
    """
    path = root / relative
    try:
        end = path.resolve()
        stays = not Path(relative).is_absolute() and (
            end.is_relative_to(root.resolve()) or (path.is_symlink() and end.is_relative_to(dvc_cache(Path.cwd())))
        )
    except (RuntimeError, ValueError, OSError) as error:  # a loop of links, a NUL byte, a name too long
        raise UserError(f"{relative!r} below {root} is no usable path ({error})") from error
    if not stays:
        raise UserError(f"{relative!r} leads out of {root}; paths are relative to that folder and stay inside it")
    return path


@lru_cache
def dvc_cache(workspace: Path) -> Path:
    """Where DVC keeps the files of a workspace, as its configuration says."""
    config = ConfigParser(interpolation=None)
    config.read([workspace / ".dvc/config", workspace / ".dvc/config.local"], encoding="utf-8")
    return (workspace / ".dvc" / config.get("cache", "dir", fallback="cache")).resolve()


def sha256(path: Path) -> str:
    """Hash of the bytes of a file, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
