"""Run the pipeline for several settings and seeds, and keep the scores of every run for a table.

`python -m tools.study scenes --methods cam irn --seeds 0 1 2 --set data.limit=100` runs one DVC experiment for each
method and seed in a temporary copy, one after the other (stages that runs share come from the run cache). Their
metrics, details, counts of photographs and the seconds of their stages are kept in `metrics/studies/scenes/<run>/`.
`--drawings 0 1 2` does so on several drawings of the bundled scenes. `--until masks` leaves out the stages after that
artefact.
Runs that are kept already are left out, so a killed study continues. `python -m tools.compare metrics/studies/scenes`
makes the table.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from pipeline.config.data import ScenesData
from pipeline.run.errors import UserError
from pipeline.run.files import new_folder, write_json
from pipeline.run.stage import run_stage
from pipeline.scoring.artefacts import ARTEFACTS, EVALUATED
from pipeline.scoring.counts import COUNTS, counts_path
from pipeline.scoring.records import details_path
from tools.kept import KEPT_COUNTS, SECONDS
from tools.minutes import seconds_record, timed

STUDIES = Path("metrics/studies")


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="name of the study: its runs are kept in metrics/studies/<name>")
    parser.add_argument("--methods", nargs="+", default=["cam"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], metavar="KNOB=VALUE", dest="knobs", help="as dvc exp run -S")
    parser.add_argument("--name", help="name of the run, in place of method and knobs (one method)")
    parser.add_argument("--until", choices=EVALUATED, default=EVALUATED[-1], help="last artefact to make and evaluate")
    parser.add_argument(
        "--drawings", nargs="+", type=int, default=[None], help="of the bundled scenes: data.scenes.seed"
    )
    arguments = parser.parse_args()
    folder, artefacts = STUDIES / arguments.study, EVALUATED[: EVALUATED.index(arguments.until) + 1]
    places = (arguments.methods, arguments.seeds, arguments.drawings)
    run_missing(folder, *places, arguments.knobs, arguments.name, artefacts)


def run_missing(
    study: Path,
    methods: Sequence[str],
    seeds: Sequence[int],
    drawings: Sequence[int | None],
    knobs: Sequence[str] = (),
    name: str | None = None,
    artefacts: Sequence[str] = EVALUATED,
) -> None:
    """Run what a study does not keep yet, and keep it.

    Args:
        study: its folder.
        methods: to run on every drawing with every seed.
        seeds: of the trainings.
        drawings: of the bundled scenes; None: as params.yaml has it.
        knobs: further ones, as `dvc exp run -S` takes them.
        name: of the run, in place of method and knobs.
        artefacts: what to make and evaluate.

    Raises:
        UserError: an experiment failed.
    """
    for method, drawing, seed in product(methods, drawings, seeds):
        words = [method, *(knob.replace("=", "-").replace("/", "_") for knob in knobs)]
        run = f"{name or '-'.join(words)}-seed{seed}{drawing_name(drawing)}"
        if not (study / run).exists():
            drawn = [] if drawing is None else [f"data.scenes.seed={drawing}"]
            settings = [f"method={method}", f"seed={seed}", *drawn, *knobs]
            commit, seconds = run_experiment(f"{study.name}-{run}", settings, artefacts)
            keep_metrics(commit, study / run, ("classifier", *artefacts), seconds)


def drawing_name(drawing: int | None) -> str:
    """What the name of a run says of the drawing of its scenes: nothing of the usual one."""
    return "" if drawing in (None, ScenesData().seed) else f"-drawing{drawing}"


def run_experiment(name: str, knobs: Sequence[str], artefacts: Sequence[str]) -> tuple[str, dict[str, float]]:
    """Evaluate some artefacts of one setting in a temporary copy.

    An experiment of this name that a killed study has left is replaced: what it ran comes from the run cache.

    Returns:
        The git commit that holds the results, and the seconds of each stage that ran.

    Raises:
        UserError: the experiment failed, or params.yaml has changes that are in no commit.
    """
    if git("status", "--porcelain", "--", "params.yaml"):
        raise UserError(
            "params.yaml has changes that are in no commit (`dvc exp run -S` leaves its values there), and a study "
            "would run them; `git checkout params.yaml` takes them back, or commit them"
        )
    name = experiment_name(name)
    print(f"== {name}: {' '.join(knobs)}", flush=True)
    head = git("rev-parse", "HEAD")
    ref = f"refs/exps/{head[:2]}/{head[2:]}/{name}"  # where DVC keeps the experiment
    git("update-ref", "-d", ref)
    words = [word for knob in knobs for word in ("-S", knob)]
    targets = [f"evaluate@{artefact}" for artefact in artefacts]
    status, seconds = timed(["dvc", "exp", "run", "--temp", "--name", name, *words, *targets])
    if status:
        raise UserError(f"the experiment {' '.join(knobs)} failed; see above")
    return git("rev-parse", "--verify", ref), seconds


def experiment_name(text: str) -> str:
    """A text without what git does not allow in the name of a ref."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")


def git(*arguments: str) -> str:
    """What a git command prints."""
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def keep_metrics(commit: str, folder: Path, names: Sequence[str], seconds: dict[str, float]) -> None:
    """Copy the metrics of some artefacts of an experiment, and their details, which rules and localizer have alone.

    The counts of photographs come with them: git has the others, DVC's cache has these. The seconds of its
    stages come with them.
    """
    files = [Path(f"{name}.json") for name in names if name in ("classifier", *ARTEFACTS)]
    with new_folder(folder) as output:
        write_json(output / SECONDS, seconds_record(seconds))
        for path in [*files, *(details_path(Path(), name) for name in names)]:
            show = ["git", "show", f"{commit}:{Path('metrics') / path}"]
            content = subprocess.run(show, check=True, capture_output=True).stdout
            (output / path).parent.mkdir(exist_ok=True)
            (output / path).write_bytes(content)
        for name in (name for name in names if name in ARTEFACTS):
            path = counts_path(output / KEPT_COUNTS, name)
            path.parent.mkdir(exist_ok=True)
            get = ["dvc", "get", ".", str(counts_path(COUNTS, name)), "--rev", commit, "--out", str(path)]
            subprocess.run(get, check=True, capture_output=True)


if __name__ == "__main__":
    run_stage(main)
