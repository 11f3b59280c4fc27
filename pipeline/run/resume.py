"""State that outlives a killed stage: `.resume/<stage>/<fingerprint>/`, ignored by git and DVC.

The fingerprint covers everything that the result depends on: what the stage is told (its knobs and the digest of its
code), and the input artefacts. Another seed or an edited module therefore never resumes a foreign checkpoint, which
DVC's `persist: true` would. Finished work is for a run that was killed before DVC took the result: once `dvc.lock` has
it, the stage is asked to compute anew (`dvc repro --force`), and does.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from pipeline.run.errors import UserError
from pipeline.run.files import sha256, write_atomic, write_text
from pipeline.run.runtime import barrier, rank
from pipeline.run.told import CONFIG, Told

PLACE = "place"
ROOT, LOCK_FILE = Path(".resume"), Path("dvc.lock")


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
    """The folder for this stage's unfinished work; a second run of the stage, which has the same outputs, is refused.

    Work of other fingerprints that ended well is removed; unfinished work of others is kept for their next run. Work of
    this fingerprint that ended well and that DVC has taken is removed as well.

    Raises:
        UserError: another process holds the lock.
    """
    folder = ROOT / stage / fingerprint(config, inputs)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        if rank() == 0:
            try:  # a lock of the process alone: children that live on after a kill do not hold it
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(f"{stage} is already running in this folder (lock {folder.parent / 'lock'})") from error
            for other in folder.parent.iterdir():
                if (other / "finished").exists() and (other != folder or taken(stage)):
                    shutil.rmtree(other)
            folder.mkdir(exist_ok=True)
        barrier()
        yield folder
        barrier()
        if rank() == 0:
            write_text(folder / "finished", "")


def taken(stage: str) -> bool:
    """Whether `dvc.lock` has a result of the stage for what it is told now."""
    if not LOCK_FILE.exists():
        return False
    told = CONFIG / f"{stage}.json"
    entry = yaml.safe_load(LOCK_FILE.read_text(encoding="utf-8")).get("stages", {}).get(stage, {})
    known = {dependency["path"]: dependency.get("md5") for dependency in entry.get("deps", [])}
    return told.exists() and known.get(str(told)) == hashlib.md5(told.read_bytes(), usedforsecurity=False).hexdigest()


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and builtins, atomically: a kill leaves the former checkpoint whole. It knows where it belongs."""
    write_atomic(path, lambda temporary: torch.save(state | {PLACE: str(path.parent)}, temporary))


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """What `save_checkpoint` wrote, or nothing where there is no checkpoint; no pickle is executed.

    One that is damaged (its checksums do not fit), or of another run, is moved aside, with a word about it: the work
    starts anew.
    """
    if not path.exists():
        return None
    state = None if _damaged(path) else torch.load(path, map_location="cpu", weights_only=True)
    barrier()
    if state is None or state.pop(PLACE, None) != str(path.parent):
        if rank() == 0:
            aside = path.replace(path.with_name(f"{path.name}.damaged"))
            what = "damaged" if state is None else "of another run"
            print(f"WARNING: {path} is {what}, and moved to {aside}; the work starts anew", flush=True)
        barrier()
        return None
    return dict(state)


def _damaged(path: Path) -> bool:
    """Whether a checkpoint is no whole archive, or one of its records does not have its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is not None
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError):
        return True
