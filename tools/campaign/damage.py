"""Damaged files: unfinished work is named and computed anew, artefacts are named or made again."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from pipeline.run.resume import PLACE
from tools.campaign.project import Project, remove
from tools.campaign.running import forked, run
from tools.campaign.tries import Try

FLIPPED = "with a flipped bit"
DAMAGES = ("emptied", "cut", FLIPPED)
ARTEFACTS = {
    "data/prepared/manifest.csv": "train_classifier",
    "data/prepared/classes.json": "train_classifier",
    "data/classifier/network.json": "train_localizer",
    "data/localizer/weights.safetensors": "extract_cams",
    "data/localizer/network.json": "extract_cams",
    "data/seeds/shard-00000.safetensors": "evaluate seeds",
    "data/refined/shard-00000.safetensors": "evaluate refined",
    "data/background/refined.json": "make_masks",
    "data/masks/*.png": "evaluate masks",
    "data/segmenter/weights.safetensors": "predict",
    "data/predictions/*.png": "evaluate segmenter",
    "data/config/predict.json": "predict",
}
"""Files between stages, and a stage that reads each."""

UNFINISHED = {
    "train_classifier": "checkpoint.pt",
    "extract_cams": "shard-00000.safetensors",
    "make_masks": "masks/*.png",
    "predict": "masks/*.png",
}
"""Stages, and a file of their unfinished work."""


def damaged(path: Path, how: str, random_: random.Random) -> None:
    """Damage a file; a flipped bit falls into its second half, where its values are."""
    data = bytearray(path.read_bytes())
    if how == FLIPPED:
        place = random_.randrange(len(data) // 2, len(data) - 24)
        data[place] ^= 1 << random_.randrange(8)
    else:
        data = data[: 0 if how == "emptied" else random_.randrange(1, len(data) - 1)]
    path.write_bytes(data)


def some_file(folder: Path, pattern: str) -> Path:
    """The first whole file below a folder that a pattern names."""
    return min(whole_files(folder, pattern))


def whole_files(folder: Path, pattern: str) -> list[Path]:
    """The files below a folder that a pattern names, without those that are being written."""
    return [path for path in folder.glob(f"**/{pattern}") if not path.name.startswith(".")]


def artefacts(project: Project, random_: random.Random) -> Iterator[Try]:
    """Damage files between stages; a stage that reads one without DVC names it. JSON and CSV have no checksum."""
    for pattern, stage in ARTEFACTS.items():
        for how in DAMAGES if pattern.endswith((".png", ".safetensors")) else DAMAGES[:2]:
            path = min(project.folder.glob(pattern))
            damaged(path, how, random_)
            ended = forked(project.folder, stage)
            wrong = "" if ended.status else "nothing is said"
            if "Traceback" in ended.output:
                wrong = f"a traceback: {ended.output.strip().splitlines()[-1]}"
            elif ended.status and str(path.relative_to(project.folder)) not in ended.output:
                wrong = f"the file is not named: {ended.output.strip()[-200:]}"
            yield Try(f"artefact {how}, read without DVC", f"{path.name}, {stage}", wrong)
            project.restore()


def unfinished(project: Project, random_: random.Random) -> Iterator[Try]:
    """Damage what a killed run has left; the next run says so, and ends with the same bytes."""
    for stage, pattern in UNFINISHED.items():
        left = kill_at(project, stage, pattern)
        for how in (*DAMAGES, *(["of another run"] if stage == "train_classifier" else [])):
            project.forget(stage)
            shutil.copytree(left, project.folder / ".resume" / stage)
            path = some_file(project.folder / ".resume" / stage, pattern)
            if how == "of another run":
                of_another_run(path)
            else:
                damaged(path, how, random_)
            ended = forked(project.folder, stage)
            wrong = [
                "" if not ended.status else f"the next run failed: {ended.output[-300:]}",
                "" if "WARNING" in ended.output and path.name in ended.output else "it is not said",
                "" if ended.status else project.difference(stage),
            ]
            kind = "checkpoint" if path.suffix == ".pt" else "unfinished map or mask"
            yield Try(f"{kind} {how}", f"{path.name} of {stage}", "; ".join(filter(None, wrong)))
        remove(left)
    project.restore()


def of_another_run(path: Path) -> None:
    """Make a checkpoint one that another run has saved."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    torch.save(state | {PLACE: str(Path(state[PLACE]).with_name("another"))}, path)


def kill_at(project: Project, stage: str, pattern: str) -> Path:
    """Kill a run of a stage when a file of its unfinished work is there; a copy of all that it has left."""
    project.forget(stage)

    def watch(process: int) -> bool:
        if there := whole_files(project.folder / ".resume" / stage, pattern):
            os.kill(process, signal.SIGKILL)
        return bool(there)

    forked(project.folder, stage, watch)
    left = project.folder.with_name(f"left-{stage}")
    for mark in (project.folder / ".resume" / stage).glob("*/finished"):
        mark.unlink()  # it was quicker than the kill
    shutil.copytree(project.folder / ".resume" / stage, left)
    return left


def noticed_by_dvc(project: Project, random_: random.Random) -> Iterator[Try]:
    """Damage files that DVC knows: the next `dvc repro` makes them again."""
    ways: dict[str, tuple[str, str, Callable[[Path], object]]] = {
        "cut": ("extract_cams", "data/seeds/*", lambda path: damaged(path, "cut", random_)),
        FLIPPED: (
            "train_classifier",
            "data/classifier/*",
            lambda path: damaged(path, FLIPPED, random_),
        ),
        "deleted": ("predict", "data/predictions/*", lambda path: path.unlink()),
        "swapped": ("make_masks", "data/masks/*", lambda path: shutil.copyfile(min(path.parent.iterdir()), path)),
    }
    committed = run(project.folder, ["dvc", "commit", "--force", "--quiet"])
    for how, (stage, pattern, harm) in ways.items():
        path = max(project.folder.glob(pattern))
        harm(path)
        ended = committed if committed.status else run(project.folder, ["dvc", "repro", "--single-item", stage])
        wrong = ended.output[-300:] if ended.status else project.difference(stage)
        yield Try(f"artefact {how}, then `dvc repro`", f"{path.name} of {stage}", wrong)
        project.restore()
