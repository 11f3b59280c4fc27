"""A training of train_localizer that is killed, continued, and compared with one that was not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import train_localizer
from pipeline.run.files import sha256
from pipeline.training import loop as training
from tests.support.processes import forked
from tests.support.stages import run


def continued_equals_whole(
    monkeypatch: pytest.MonkeyPatch, outputs: Sequence[Path], stop: Callable[[list[str]], bool]
) -> list[str]:
    """Train in one go, then anew in a process that is killed (-9), then on; both must leave the same bytes.

    Args:
        monkeypatch: patches the writing of checkpoints.
        outputs: the files that are compared.
        stop: whether to kill, given the names of the folders that checkpoints went into so far.

    Returns:
        These names for the second training, before and after the kill.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as in the fork, so that bits are equal
    try:
        run(train_localizer)
        whole = [sha256(path) for path in outputs]
        for folder in Path(".resume/train_localizer").iterdir():
            folder.rename(folder.with_name("kept-" + folder.name))
        saved = kill_at_checkpoint(monkeypatch, stop)
        assert forked(lambda: run(train_localizer)).status == -signal.SIGKILL
        run(train_localizer)
    finally:
        torch.set_num_threads(threads)
    assert [sha256(path) for path in outputs] == whole
    return saved.read_text().split()


def kill_at_checkpoint(monkeypatch: pytest.MonkeyPatch, stop: Callable[[list[str]], bool]) -> Path:
    """Note every checkpoint in a file, which is returned, and die at the one where `stop` says so."""
    saved, save = Path("checkpoints.txt"), training.save_checkpoint

    def save_or_die(path: Path, state: dict[str, Any]) -> None:
        save(path, state)
        with saved.open("a") as file:
            file.write(f"{path.parent.name}\n")
        if stop(saved.read_text().split()):
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(training, "save_checkpoint", save_or_die)
    return saved
