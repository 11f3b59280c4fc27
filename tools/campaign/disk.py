"""A disk that is full in the middle of a stage: a sentence, nothing lost, and the same bytes once there is room.

The disk is a small file system in memory, in a name space of this process alone; where the system forbids those,
nothing is tried.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from tools.campaign.project import Project, remove
from tools.campaign.running import Ended, forked
from tools.campaign.tries import Try

KINDS = {
    "prepare_data": "scenes and tables",
    "train_classifier": "checkpoints and weights",
    "extract_cams": "shards of maps",
    "train_affinity": "labels and checkpoints",
    "make_masks": "masks",
    "train_segmenter": "checkpoints and weights",
    "predict": "masks",
    "evaluate@seeds": "counts, numbers and charts",
    "report": "a page",
}
"""Stages, and what each writes."""

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_REMOUNT, MS_REC, MS_PRIVATE = 32, 16384, 1 << 18
AGAIN = 4
"""So often less room is given to a stage that had enough."""


def full_disks(project: Project, stages: list[str], random_: random.Random) -> Iterator[Try]:
    """Let the disk be full while each of some stages runs, in a process that has `own_names`."""
    libc = ctypes.CDLL(None, use_errno=True)
    small = project.folder.with_name("small")
    small.mkdir()
    for stage in stages:
        yield Try(f"disk full while writing {KINDS[stage]}", *fill(project, small, stage, libc, random_))


def own_names() -> bool:
    """Enter a name space of one's own for mounts, as nobody but oneself; whether the system lets one."""
    libc, user, group = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS):
        return False
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path(f"/proc/self/{name}").write_text(text)
    return libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) == 0


def fill(project: Project, small: Path, stage: str, libc: ctypes.CDLL, random_: random.Random) -> tuple[str, str]:
    """Run a stage on a disk with too little room, and again with enough; what was done, and what was wrong."""
    needed = size(project, stage)
    room = needed
    for _ in range(AGAIN):
        room = int(random_.uniform(0.02, 0.9) * room)
        project.forget(stage)
        mount(libc, small, used(project.folder) + room)
        copied(project.folder, small)
        project.restore()
        ended = forked(small, stage.replace("@", " "))
        if ended.status:
            break
        libc.umount(str(small).encode())
    else:
        return f"{stage}, room for {room} bytes of {needed}", "it always had room enough"
    wrong = wrong_about(ended)
    mount(libc, small, used(project.folder) * 10, MS_REMOUNT)
    again = forked(small, stage.replace("@", " "))
    there = Project(small, outputs=project.outputs, whole=project.whole)
    wrong += [f"the next run failed: {again.output[-300:]}"] if again.status else [there.difference(stage)]
    libc.umount(str(small).encode())
    return f"{stage}, room for {room} bytes of {needed}", "; ".join(filter(None, wrong))


def wrong_about(ended: Ended) -> list[str]:
    """What is wrong with the words that a stage on a full disk ends with."""
    words = ended.output
    return [
        *(["a traceback"] if "Traceback" in words else []),
        *(["it does not say that the disk is full"] if "is full, or a quota is reached" not in words else []),
    ]


def mount(libc: ctypes.CDLL, place: Path, room: int, flags: int = 0) -> None:
    """Mount a disk in memory with so many bytes, or change its size.

    Raises:
        OSError: the system refuses.
    """
    options = f"size={max(room, 1) // 4096 * 4096 + 4096},nr_inodes=0".encode()
    if libc.mount(b"tmpfs", str(place).encode(), b"tmpfs", flags, options):
        raise OSError(ctypes.get_errno(), "mount")


def size(project: Project, stage: str) -> int:
    """How many bytes a stage writes, about: what it leaves, and its unfinished work."""
    places = [project.folder / path for path in (*project.outputs[stage], f".resume/{stage}")]
    return sum(used(place) for place in places)


def used(place: Path) -> int:
    """Bytes in pages of 4 KiB that the files below a place take."""
    files = [file for file in (place, *place.rglob("*")) if file.is_file() and not {".git", ".dvc"} & {*file.parts}]
    return sum(-(-file.stat().st_size // 4096) * 4096 for file in files)


def copied(source: Path, target: Path) -> None:
    """Copy a project without its history."""
    for path in source.iterdir():
        if path.name not in (".git", ".dvc"):
            remove(target / path.name)
            (shutil.copytree if path.is_dir() else shutil.copy2)(path, target / path.name)
