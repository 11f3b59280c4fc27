"""Every paper preset for a few steps: its stages on drawn scenes, at published crops and batches, with random weights.

All stages that a device has a part in are run. The segmentation network learns the scenes' own masks, since masks that
come of untrained networks might hold no class at all.

A stage that is told what it was told for a method before, with a network alike, would cost the same: it takes over the
outputs of that one, and its row names the method.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from models.knobs import Format
from models.registry import segmenter_network
from pipeline import configure, prepare_data
from pipeline.config.load import resolve
from pipeline.config.presets import PRESETS, Tree, methods
from pipeline.data.manifest import PREPARED
from pipeline.run.files import read_json, write_text
from pipeline.run.runtime import barrier, rank
from pipeline.run.told import CONFIG, Runtime, told
from pipeline.train_segmenter import MASKS
from tools.gpu_check import tiny
from tools.gpu_check.measure import Row, TimedMachine, measured, speed, trained

PHOTOGRAPHS, HELD_OUT, SIDE = 64, 2, 500
EPOCHS = 2  # the target of an online training shares in the first one and follows in the second
STAGES = (
    "train_classifier",
    "train_localizer",
    "extract_cams",
    "train_affinity",
    "refine_cams",
    "train_segmenter",
)
LOADS = {"train_localizer": "classifier", "extract_cams": "localizer", "refine_cams": "affinity"}
"""The artefact whose network a stage builds."""

DATA = Path("data")


@dataclass(frozen=True)
class Settings:
    """How the presets are run.

    Attributes:
        precision: of trainings and inference, as the knobs.
        tiny: small networks and sizes, for a CPU.
    """

    precision: Format = "tf32"
    tiny: bool = False


class Made(NamedTuple):
    """What a stage has left: for which method, in which workspace, which entries of `data`."""

    method: str
    workspace: Path
    outputs: list[str]


def papers() -> list[str]:
    """The methods that have a preset file of their own; the others are variants of these."""
    return [name for name in methods() if (PRESETS / f"{name}.yaml").exists()]


# --------------------------------------------------------------------------------------------------------------- knobs


def paper_knobs(method: str, settings: Settings) -> Tree:
    """All knobs of a method's paper preset on scenes, short, and without initial weights.

    The CRF is left out: the device has no part in it.
    """
    precision = {"training": settings.precision, "inference": settings.precision}
    scenes = {"train": PHOTOGRAPHS, "val": HELD_OUT, "size": SIDE}
    given = {"method": method, "profile": "paper", "precision": precision}
    knobs = resolve(given | {"data": {"name": "scenes", "scenes": scenes}}).model_dump(mode="json")
    return changed(knobs, changes(settings))


def changes(settings: Settings) -> dict[str, Callable[[Any], Any]]:
    """What becomes of knobs, by the last part of their names."""
    wanted: dict[str, Callable[[Any], Any]] = {
        "weights": lambda weights: "none",
        "epochs": lambda epochs: EPOCHS,
        "crf": lambda kernels: None,
    }
    return wanted | dict(tiny.CHANGES if settings.tiny else {})


def changed(knobs: Tree, wanted: Mapping[str, Callable[[Any], Any]]) -> Tree:
    """Knobs, at any depth, with some of them changed."""
    return {
        key: changed(value, wanted) if isinstance(value, dict) else wanted.get(key, lambda same: same)(value)
        for key, value in knobs.items()
    }


def runtime_of(settings: Settings) -> Runtime:
    """How all methods run."""
    return configure.runtime(resolve(paper_knobs(papers()[0], settings)))


# -------------------------------------------------------------------------------------------------------------- stages


def preset_rows(names: Sequence[str], settings: Settings, machine: TimedMachine, folder: Path) -> Iterator[Row]:
    """One row for each stage of each method.

    Args:
        names: of the methods.
        settings: how they are run.
        machine: what they run on.
        folder: for their workspaces; what it holds is removed.
    """
    if rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)
    barrier()
    scenes, made = folder / "scenes", dict[str, Made]()
    for name in names:
        knobs = paper_knobs(name, settings)
        if not scenes.exists():
            with workspace(scenes, knobs):
                yield {"method": "all", "stage": "prepare_data"} | measured(draw, machine)
        with workspace(folder / name, knobs):
            link(scenes, [PREPARED.name, MASKS.name])
            yield from method_rows(name, machine, made)
    if rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def workspace(folder: Path, knobs: Tree) -> Iterator[None]:
    """A new folder, where stages are told what knobs say, as the current one."""
    if rank() == 0:
        folder.mkdir(parents=True)
        with chdir(folder):
            write_text(Path("params.yaml"), yaml.safe_dump(knobs))
            configure.main()
    barrier()
    with chdir(folder):
        yield


def method_rows(method: str, machine: TimedMachine, made: dict[str, Made]) -> Iterator[Row]:
    """One row for each stage of the method that the current folder is for.

    Args:
        method: its name.
        machine: what it runs on.
        made: what stages have left for methods before; what is made here is added.
    """
    for stage in STAGES:
        work = description(stage)
        row: Row = {"method": method, "stage": stage}
        if work in made:
            link(made[work].workspace, made[work].outputs)
            yield row | {"same_as": made[work].method}
            continue
        before = set(DATA.iterdir())
        row |= stage_row(stage, machine)
        barrier()
        if "error" not in row:
            made[work] = Made(method, Path.cwd(), [path.name for path in set(DATA.iterdir()) - before])
        if rank() == 0:
            shutil.rmtree(".resume", ignore_errors=True)  # checkpoints are large
        barrier()
        yield row


def description(stage: str) -> str:
    """What a stage's cost depends on: what it is told, and which network it builds."""
    config = read_json(CONFIG / f"{stage}.json", "configure")
    source = LOADS.get(stage)
    if stage == "train_segmenter" and segmenter_network(config["network"]) is None:
        source = "localizer"
    path = DATA / str(source) / "network.json"
    return json.dumps([stage, config, path.read_text(encoding="utf-8") if path.exists() else None])


def link(other: Path, names: Sequence[str]) -> None:
    """Take over entries of another workspace's `data`."""
    if rank() == 0:
        for name in names:
            (DATA / name).symlink_to(other / DATA / name)
    barrier()


def stage_row(stage: str, machine: TimedMachine) -> Row:
    """Run a stage; what it cost, and for trainings the speed of a step and what came of it.

    Returns:
        What `measured`, `speed` and `trained` give; `code`, the digest of the stage's code; and `idle` where the method
        has no use for the stage, so that it hands on what it got.
    """
    row = measured(lambda: import_module(f"pipeline.{stage}").main(machine), machine)
    config = read_json(CONFIG / f"{stage}.json", "configure")
    row["code"] = config["code"]
    if "none" in (config.get("network"), config.get("rule")):
        return row | {"idle": True}
    if optimisation := config.get("optimisation"):
        folder = DATA / stage.removeprefix("train_")
        row |= speed(machine.ends, min(optimisation["batch"], PHOTOGRAPHS)) | trained(folder)
    return row


def draw() -> None:
    """Draw the scenes, and put their masks where the segmentation network looks for them."""
    if rank() == 0:
        prepare_data.main(told("runtime", Runtime))
        MASKS.symlink_to((PREPARED / "scenes/masks").absolute())
    barrier()
