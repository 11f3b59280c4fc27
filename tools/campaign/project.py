"""A small copy of this repository, and what an uninterrupted run of a method leaves in it."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.run.errors import UserError
from pipeline.run.files import sha256
from pipeline.scoring.artefacts import EVALUATED
from tools.campaign.running import forked
from tools.smoke import copy_repository

TRAININGS = {"classifier": 3, "localizer": 2, "affinity": 2, "segmenter": 2}
"""Epochs of each, so that a kill may fall between two checkpoints."""

SMALL: dict[str, Any] = {
    "workers": 1,
    "data": {"scenes": {"train": 8, "val": 4, "seed": 0}},
    "report": {"gallery": 2},
    **{name: {"optimisation": {"epochs": epochs}} for name, epochs in TRAININGS.items()},
}
SMALL["localizer"]["bao"] = {"target_schedule": ["0:share", "1:ema"]}  # the preset's is longer
STAGES = (
    "configure",
    "prepare_data",
    "train_classifier",
    "train_localizer",
    "extract_cams",
    "train_affinity",
    "refine_cams",
    "choose_background",
    "make_masks",
    "train_segmenter",
    "predict",
    *(f"evaluate@{name}" for name in EVALUATED),
    "report",
)
"""In their order, as DVC names them."""


@dataclass
class Project:
    """The copy, after an uninterrupted run of a method.

    Attributes:
        folder: of the copy.
        stages: those that run, in order.
        outputs: what each stage writes.
        method: of the last run.
        seconds: how long each stage took, as a fork.
        whole: hash of every file that a stage has left, by the stage.
    """

    folder: Path
    stages: tuple[str, ...] = STAGES
    outputs: dict[str, list[str]] = field(default_factory=dict)
    method: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    whole: dict[str, dict[str, str]] = field(default_factory=dict)

    def run(self, method: str) -> None:
        """Run a method from its start to its end, and keep what it leaves.

        Raises:
            UserError: a stage failed.
        """
        self.method = method
        path = self.folder / "params.yaml"
        knobs = yaml.safe_load(path.read_text(encoding="utf-8")) | {"method": method}
        path.write_text(yaml.safe_dump(merged(knobs, SMALL), sort_keys=False), encoding="utf-8")
        for stage in self.stages:
            start = time.monotonic()
            if (ended := forked(self.folder, stage.replace("@", " "))).status:
                raise UserError(f"{stage} of {method} failed without any disturbance:\n{ended.output[-2000:]}")
            self.seconds[stage] = time.monotonic() - start
        self.whole = {stage: self.digests(stage) for stage in self.stages}
        for name in ("data", "metrics"):
            shutil.copytree(self.folder / name, self.kept / name, dirs_exist_ok=True)

    @property
    def kept(self) -> Path:
        """Where what the run has left is kept."""
        return self.folder.with_name(f"{self.folder.name}-{self.method}")

    def digests(self, stage: str) -> dict[str, str]:
        """Hash of every file that a stage has left, hidden ones too, by path."""
        found = [self.folder / output for output in self.outputs[stage]]
        files = [file for path in found for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
        return {str(file.relative_to(self.folder)): sha256(file) for file in sorted(files)}

    def difference(self, stage: str) -> str:
        """What a stage has left that differs from the uninterrupted run, in words; nothing where it is equal."""
        now, whole = self.digests(stage), self.whole[stage]
        names = sorted(name for name in now.keys() | whole.keys() if now.get(name) != whole.get(name))
        return f"other bytes: {', '.join(names[:4])}" if names else ""

    def forget(self, stage: str) -> None:
        """Let a stage not have run: no output, no unfinished work, no record of DVC."""
        for path in self.outputs[stage]:
            remove(self.folder / path)
        remove(self.folder / ".resume" / stage)
        remove(self.folder / "dvc.lock")

    def restore(self) -> None:
        """Put back what the uninterrupted run has left."""
        for name in ("data", "metrics"):
            remove(self.folder / name)
            shutil.copytree(self.kept / name, self.folder / name)


def new_project(folder: Path, stages: tuple[str, ...] = STAGES) -> Project:
    """A fresh copy of this repository."""
    folder.mkdir(parents=True)
    return Project(copy_repository(folder), stages, declared_outputs())


def declared_outputs() -> dict[str, list[str]]:
    """What each stage writes, as dvc.yaml declares it."""
    found: dict[str, list[str]] = {}
    for name, stage in yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"].items():
        for key, item in stage.get("foreach", {"": {}}).items():
            text = yaml.safe_dump(stage.get("do", stage)).replace("${key}", key)
            for word, value in item.items():
                text = text.replace(f"${{item.{word}}}", value)
            written = yaml.safe_load(text)
            paths = [one for kind in ("outs", "metrics", "plots") for one in written.get(kind, [])]
            found[f"{name}@{key}" if key else name] = [
                one if isinstance(one, str) else next(iter(one)) for one in paths
            ]
    return found


def merged(knobs: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Knobs with some changed."""
    both = {
        key: merged(knobs[key], changes[key]) for key in knobs.keys() & changes.keys() if isinstance(knobs[key], dict)
    }
    return knobs | changes | both


def remove(path: Path) -> None:
    """Remove a file or a folder, where it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
