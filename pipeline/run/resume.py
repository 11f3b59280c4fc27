"""State that outlives a killed stage: `.resume/<stage>/<fingerprint>/`, ignored by git and DVC.

The fingerprint covers everything that the result depends on: what the stage is told (its knobs and the digest of its
code), and the input artefacts. Another seed or an edited module therefore never resumes a foreign checkpoint, which
DVC's `persist: true` would. Finished work is for a run that was killed before DVC took the result: once DVC has it, the
stage is asked to compute anew (`dvc repro --force`), and does.
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
import yaml

from pipeline.run.errors import UserError
from pipeline.run.files import dvc_cache, sha256, write_atomic, write_text
from pipeline.run.runtime import barrier, rank
from pipeline.run.told import CONFIG, Told

PLACE, HASH = "place", "sha256"
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
    """Whether DVC has a result of the stage for what it is told now."""
    told = CONFIG / f"{stage}.json"
    if not told.exists():
        return False
    wanted = (str(told), hashlib.md5(told.read_bytes(), usedforsecurity=False).hexdigest())
    return any(wanted in dependencies for dependencies in recorded(stage))


def recorded(stage: str) -> Iterator[set[tuple[str, str]]]:
    """Paths and hashes of what the results depended on that DVC has taken: in `dvc.lock`, and in its run cache.

    The lock file alone would not do: git may bring back another one.
    """
    places = [LOCK_FILE] if LOCK_FILE.exists() else []
    for path in (*places, *sorted((dvc_cache(Path.cwd()) / "runs").glob("*/*/*"))):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            entry = content.get("stages", {}).get(stage, {}) if path == LOCK_FILE else content
            yield {(dependency["path"], dependency.get("md5", "")) for dependency in entry.get("deps", [])}
        except (yaml.YAMLError, OSError, UnicodeDecodeError, AttributeError, KeyError, TypeError):
            continue  # half of a merge, or no file of DVC's: it has no record


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and builtins, atomically: a kill leaves the former checkpoint whole.

    It knows where it belongs, and a hash of all that it holds: the checksums of its archive leave some of it out.
    """
    placed = state | {PLACE: str(path.parent)}
    write_atomic(path, lambda temporary: torch.save(placed | {HASH: state_hash(placed)}, temporary))


def state_hash(state: Any) -> str:
    """SHA-256 of tensors and builtins, nested as they are."""
    digest = hashlib.sha256()
    waiting = [state]
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        elif isinstance(value, dict | list | tuple):
            digest.update(f"{type(value).__name__} {len(value)}".encode())
            waiting += value.items() if isinstance(value, dict) else value
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """What `save_checkpoint` wrote, or nothing where there is no checkpoint; no pickle is executed.

    One that is damaged (its hash does not fit), or of another run, is moved aside, with a word about it: the work
    starts anew.
    """
    if not path.exists():
        return None
    state = _whole_state(path)
    barrier()
    if state is None or state.pop(PLACE, None) != str(path.parent):
        if rank() == 0:
            aside = path.replace(path.with_name(f"{path.name}.damaged"))
            what = "damaged" if state is None else "of another run"
            print(f"WARNING: {path} is {what}, and moved to {aside}; the work starts anew", flush=True)
        barrier()
        return None
    return dict(state)


def _whole_state(path: Path) -> dict[str, Any] | None:
    """What a checkpoint holds; nothing where it cannot be read, or is not what was written."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        known = state.pop(HASH)
    except Exception:  # a damaged archive raises nearly anything
        return None
    return state if state_hash(state) == known else None
