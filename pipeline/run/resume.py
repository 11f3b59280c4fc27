"""State that outlives a killed stage: `.resume/<stage>/<fingerprint>/`, ignored by git and DVC.

The fingerprint covers everything that the result depends on: what the stage is told (its knobs and the digest of its
code), and the input artefacts. Another seed or an edited module therefore never resumes a foreign checkpoint, which
DVC's `persist: true` would.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pipeline.run.errors import UserError
from pipeline.run.files import sha256, write_atomic, write_text
from pipeline.run.runtime import barrier, rank
from pipeline.run.told import Told

ROOT = Path(".resume")


def fingerprint(config: Told, inputs: Sequence[Path]) -> str:
    """Hash of what the stage is told, and of input files (folders are walked)."""
    digest = hashlib.sha256(config.model_dump_json().encode())
    files = [file for path in inputs for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    for path in files:
        if path.is_file():
            digest.update(path.name.encode() + sha256(path).encode())
    return digest.hexdigest()[:20]


@contextmanager
def resume_folder(stage: str, config: Told, inputs: Sequence[Path]) -> Iterator[Path]:
    """The folder for this stage's unfinished work, locked against a second run of the same work.

    Work of other fingerprints that ended well is removed; unfinished work of others is kept for their next run.

    Raises:
        UserError: another process holds the lock.
    """
    folder = ROOT / stage / fingerprint(config, inputs)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        if rank() == 0:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"{stage} is already running on the same inputs (lock {folder / 'lock'})") from error
            for other in folder.parent.iterdir():
                if other != folder and (other / "finished").exists():
                    shutil.rmtree(other)
        barrier()
        yield folder
        barrier()
        if rank() == 0:
            write_text(folder / "finished", "")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and builtins, atomically: a kill leaves the former checkpoint whole."""
    write_atomic(path, lambda temporary: torch.save(state, temporary))


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """What `save_checkpoint` wrote, or nothing where there is no checkpoint; no pickle is executed."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
