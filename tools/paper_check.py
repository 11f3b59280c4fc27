"""Every paper preset on a CPU, whole: its own networks, three steps of every training, six photographs.

`make paper-check` runs all stages from the classifier to the evaluation of predictions, with published networks, rules
and losses, as for VOC 2012 and as for COCO 2014, with tiny crops and random weights, in less than ten minutes on two
cores. The photographs are drawn scenes in the layout of each data set, or, with `--photographs`, six of a folder with
the layout of VOC 2012. It prints a line for each stage: data set, method, stage, seconds, peak memory of its process; a
stage that a method before had in the same words, with the same inputs, is not run again and its line names that method.
Nothing is fetched, and nothing in the workspace changes. The segmentation network learns true masks, since masks that
come of untrained networks might hold no class at all; the pseudo masks are made and scored all the same. It ends with
status 1 if a stage failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir
from functools import partial
from importlib import import_module
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from models.registry import segmenter_network
from pipeline import configure, prepare_data
from pipeline.config.load import resolve
from pipeline.config.presets import Tree, methods, owner
from pipeline.data.ground_truth import GroundTruth
from pipeline.data.manifest import load_manifest
from pipeline.data.masks import write_mask
from pipeline.data.sources.voc2012 import CLASSES
from pipeline.run import pool
from pipeline.run.errors import UserError
from pipeline.run.files import read_json, sha256, write_text
from pipeline.run.parent import die_with_parent
from pipeline.run.runtime import be_deterministic, machine_of
from pipeline.run.stage import run_stage
from pipeline.run.told import CONFIG, Runtime, told
from pipeline.scoring.artefacts import EVALUATED
from tools.gpu_check.presets import changed
from tools.gpu_check.tiny import eighth
from tools.tiny_sets import LAYOUTS, PHOTOGRAPHS, SIDE, Sample, samples

ROOT = Path(__file__).parents[1]
FOLDER = Path(".smoke/paper_check")
DATA, MASKS = Path("data"), Path("data/masks")
LIGHT = ("choose_background", "make_masks")
STAGES = (
    "train_classifier",
    "train_localizer",
    "extract_cams",
    "train_affinity",
    "refine_cams",
    *LIGHT,
    *(f"evaluate {name}" for name in EVALUATED if name != "segmenter"),
    "train_segmenter",
    "predict",
    "evaluate segmenter",
)
CHANGES: Mapping[str, Callable[[Any], Any]] = {
    "weights": lambda weights: "none",
    "epochs": lambda epochs: 3,
    "max_steps": lambda steps: 3,
    "batch": lambda batch: 2,
    "accumulate": lambda parts: min(parts, 2),
    "crop": eighth,
    "long_side": eighth,
    "scales": lambda scales: scales[:2],
    "radius": lambda radius: 2,  # so that small grids have pairs
}
"""What becomes of knobs, by the last part of their names; photographs are small, so that factors of their size are."""

SCENES = PHOTOGRAPHS | {"size": SIDE}


class Made(NamedTuple):
    """Who has done some work before, and where."""

    method: str
    workspace: Path


class Ended(NamedTuple):
    """How the process of a stage ended: whether well, after how many seconds, with how many GiB at its peak."""

    well: bool
    seconds: float
    gib: float


def main() -> None:
    """Check the methods that the command line names, or all that have a preset of their own.

    Raises:
        UserError: a method is unknown, or a stage failed.
    """
    known = methods()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=[name for name in known if owner(name) == name])
    parser.add_argument("--data", choices=LAYOUTS, nargs="+", default=[*LAYOUTS])
    parser.add_argument("--photographs", type=Path, help="a folder of VOC 2012, or of its layout, to take six of")
    arguments = parser.parse_args()
    names: list[str] = arguments.methods
    if unknown := set(names) - set(known):
        raise UserError(f"no method is called {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    shutil.rmtree(FOLDER, ignore_errors=True)
    start = time.perf_counter()
    preload()
    photographs, classes = small_photographs(FOLDER.absolute() / "source", arguments.photographs)
    failed = 0
    for data in arguments.data:
        folder = FOLDER.absolute() / data
        failed += sum(run(names, folder, LAYOUTS[data](folder / "photographs", photographs, classes)))
    print(f"{time.perf_counter() - start:.0f} seconds", flush=True)
    if failed:
        raise UserError(f"{failed} stages failed; their output is in {FOLDER}/<data set>/<method>/<stage>.log")
    shutil.rmtree(FOLDER)


def run(names: Sequence[str], folder: Path, data: Tree) -> Iterator[bool]:
    """Run every stage of some methods on a data set and print a line for each; whether it failed."""
    made: dict[str, Made] = {}
    for name in names:
        line = f"{data['name']:9} {name:12}"
        with workspace(folder / name, small(name, data)):
            for stage in STAGES:
                if stage == "train_segmenter" and learns_masks():
                    in_a_fork(write_true_masks, Path("true_masks.log"))
                if (work := digest(stage)) in made:
                    link(stage, made[work].workspace)
                    print(f"{line} {stage:20} as {made[work].method}", flush=True)
                    continue
                ended = in_a_fork(partial(run_one, stage), Path(f"{stage}.log"))
                shutil.rmtree(".resume", ignore_errors=True)  # checkpoints are large
                print(f"{line} {stage:20} {ended.seconds:6.1f} s {ended.gib:6.2f} GiB", flush=True)
                if not ended.well:
                    print(f"{line} {stage:20} FAILED: {last_line(Path(f'{stage}.log'))}", flush=True)
                    yield True
                    break
                made[work] = Made(name, Path.cwd())
                yield False


# ----------------------------------------------------------------------------------------------------------- workspaces


def workspace(folder: Path, knobs: Tree) -> chdir[Path]:
    """A new folder where stages are told what some knobs say, and have a manifest.

    Raises:
        UserError: the data cannot be used.
    """
    folder.mkdir(parents=True)
    with chdir(folder):
        write_text(Path("params.yaml"), yaml.safe_dump(knobs))
        configure.main()
        if not in_a_fork(prepare, log := Path("prepare_data.log")).well:
            raise UserError(last_line(log))
    return chdir(folder)


def small_photographs(folder: Path, root: Path | None) -> tuple[list[Sample], list[str]]:
    """Six small photographs, and names of their classes that VOC has too.

    Args:
        folder: of a workspace for them.
        root: of somebody's photographs in the layout of VOC 2012; None draws scenes.
    """
    scenes = {"name": "scenes", "scenes": SCENES}
    voc = {"name": "voc2012", "root": str(root and root.absolute()), "voc2012": {"train_split": "train"}, "limit": 16}
    with workspace(folder, small("cam", scenes if root is None else voc)):
        found = samples(told("runtime", Runtime).folder)
        number = len(load_manifest().classes)
    return found, list(CLASSES[:number])


def small(method: str, data: Tree) -> Tree:
    """All knobs of a method's paper preset on a data set, with small sizes and no weights."""
    given = {"method": method, "profile": "paper", "device": "cpu", "workers": 0, "data": data}
    return changed(resolve(given).model_dump(mode="json"), CHANGES)


def prepare() -> None:
    """Write the manifest."""
    prepare_data.main(told("runtime", Runtime))


def write_true_masks() -> None:
    """Put the true masks of the training photographs in the place of pseudo masks."""
    manifest = load_manifest()
    truth = GroundTruth(manifest, told("runtime", Runtime).folder)
    for record in manifest.split("train").records:
        write_mask(MASKS / f"{record.id}.png", truth.read(record))


def learns_masks() -> bool:
    """Whether the segmentation network of the current workspace is trained on masks."""
    return segmenter_network(read_json(CONFIG / "train_segmenter.json", "configure")["network"]) is not None


def places(stage: str, kind: str) -> list[Path]:
    """The inputs (`deps`) or outputs (`outs`) of a stage below `data`, as dvc.yaml names them."""
    found = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage][kind]
    return [Path(name) for name in found if name.startswith("data/") and not name.startswith(str(CONFIG))]


def digest(stage: str) -> str:
    """What the work of a stage depends on; an evaluation, which takes no time, depends on its method."""
    if stage.startswith("evaluate"):
        return f"{stage} {Path.cwd()}"
    files = [file for place in places(stage, "deps") for file in (place, *sorted(place.rglob("*"))) if file.is_file()]
    told_of = read_json(CONFIG / f"{stage}.json", "configure")
    return json.dumps([stage, told_of, [(str(file), sha256(file)) for file in files]])


def link(stage: str, other: Path) -> None:
    """Take over what a stage has left in another workspace; its files are there once, under two names."""
    for place in places(stage, "outs"):
        place.parent.mkdir(parents=True, exist_ok=True)
        if (other / place).is_dir():
            shutil.copytree(other / place, place, copy_function=os.link)
        else:
            os.link(other / place, place)


# ------------------------------------------------------------------------------------------------------------ processes


def preload() -> None:
    """Import what stages import, so that their forks start at once, and let pools work in the fork itself."""
    for stage in STAGES:
        import_module(f"pipeline.{stage.split()[0]}")
    pool.ProcessPoolExecutor = _InPlace  # type: ignore[assignment,misc]


class _InPlace:
    """A pool of processes that has none: starting one takes longer than the work on six photographs."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> _InPlace:
        return self

    def __exit__(self, *_: object) -> None: ...

    def map(self, job: Callable[..., Any], *items: Sequence[Any], chunksize: int = 1) -> Iterator[Any]:
        """What `job` gives for each item."""
        return starmap(job, zip(*items, strict=True))


def run_one(stage: str) -> None:
    """Run one stage in the current workspace."""
    name, *words = stage.split()
    runtime = told("runtime", Runtime)
    sys.argv = [name, *words]
    if name in LIGHT or words:
        import_module(f"pipeline.{name}").main(runtime)
    else:
        be_deterministic()
        import_module(f"pipeline.{name}").main(machine_of(runtime))


def in_a_fork(job: Callable[[], None], log: Path) -> Ended:
    """Do some work in a process of its own, whose output goes into a file."""
    sys.stdout.flush()
    start, parent = time.perf_counter(), os.getpid()
    if (child := os.fork()) == 0:
        die_with_parent(parent)
        with log.open("w") as output:
            for stream in (1, 2):
                os.dup2(output.fileno(), stream)
            sys.stdout = sys.stderr = output
            well = did(job)
        os._exit(0 if well else 1)
    _, status, usage = os.wait4(child, 0)
    return Ended(status == 0, time.perf_counter() - start, usage.ru_maxrss / 2**20)


def did(job: Callable[[], None]) -> bool:
    """Whether some work ended well; the error is printed, whatever it is, and others go on."""
    try:
        job()
    except BaseException:
        traceback.print_exc()
        return False
    return True


def last_line(log: Path) -> str:
    """The last line of some output that says something."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


if __name__ == "__main__":
    run_stage(main)
