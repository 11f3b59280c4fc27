"""Second trainings inside a test: each once however many tests read it, and killed ones that continue."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from pipeline import train_localizer
from pipeline.run.files import sha256
from pipeline.run.resume import load_checkpoint
from pipeline.training import loop
from pipeline.training.loop import History
from pipeline.training.weights import load_network
from tests.support.processes import forked
from tests.support.stages import run

CLASSIFIER, LOCALIZER, WEIGHTS = Path("data/classifier"), Path("data/localizer"), "weights.safetensors"


@dataclass(frozen=True)
class Trained:
    """What `train_localizer` has left in a folder."""

    folder: Path

    def network(self, place: Path = LOCALIZER) -> Any:
        """The result, or the classifier before it."""
        return load_network(self.folder / place, "").eval()

    def weights(self, place: Path = LOCALIZER) -> dict[str, Tensor]:
        """Its state dict."""
        state: dict[str, Tensor] = self.network(place).state_dict()
        return state

    def checkpoint(self, name: str = "") -> dict[str, Any]:
        """The last checkpoint of the training, or of the one with a name."""
        with chdir(self.folder):  # a checkpoint knows its place
            (folder,) = filter(Path.is_dir, Path(".resume/train_localizer").iterdir())
            state = load_checkpoint(folder / name / "checkpoint.pt")
        assert state is not None
        return state

    def history(self, name: str = "") -> History:
        """One row for each epoch."""
        rows: History = self.checkpoint(name)["history"]
        return rows

    def losses(self, *names: str) -> list[float]:
        """The loss of each epoch of the trainings of these names, or of the only one."""
        return [row["loss"] for name in names or ("",) for row in self.history(name)]


class Trainings:
    """Trainings on copies of a project, each run once.

    Args:
        project: a folder with photographs, manifest, runtime file, perhaps a classifier.
        place: where copies go.
        configure: writes what the stage is told into the current folder, given some knobs.
    """

    def __init__(self, project: Path, place: Path, configure: Callable[..., Any]) -> None:
        self.project, self.place, self.configure = project, place, configure
        self.done: dict[str, Trained] = {}

    def __call__(self, **knobs: Any) -> Trained:
        """What a training with these knobs leaves; nobody may change it."""
        key = repr(sorted(knobs.items()))
        if key not in self.done:
            folder = Path(shutil.copytree(self.project, self.place / f"{len(list(self.place.iterdir()))}"))
            with chdir(folder):
                self.configure(**knobs)
                run(train_localizer)
            self.done[key] = Trained(folder)
        return self.done[key]


def here() -> Trained:
    """What the current folder holds."""
    return Trained(Path())


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
    run(train_localizer)
    whole = [sha256(path) for path in outputs]
    for folder in Path(".resume/train_localizer").iterdir():
        folder.rename(folder.with_name("kept-" + folder.name))
    saved = kill_at_checkpoint(monkeypatch, stop)
    assert forked(lambda: run(train_localizer)).status == -signal.SIGKILL
    run(train_localizer)
    assert [sha256(path) for path in outputs] == whole
    return saved.read_text().split()


def kill_at_checkpoint(monkeypatch: pytest.MonkeyPatch, stop: Callable[[list[str]], bool]) -> Path:
    """Note every checkpoint in a file, which is returned, and die at the one where `stop` says so."""
    saved, save = Path("checkpoints.txt"), loop.save_checkpoint

    def save_or_die(path: Path, state: dict[str, Any]) -> None:
        save(path, state)
        with saved.open("a") as file:
            file.write(f"{path.parent.name}\n")
        if stop(saved.read_text().split()):
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(loop, "save_checkpoint", save_or_die)
    return saved
