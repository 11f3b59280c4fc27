"""Run the pipeline for several settings and seeds, and keep the scores of every run for a table.

`python -m tools.study scenes --methods cam irn --seeds 0 1 2 --set data.limit=100` runs one DVC experiment for each
method and seed in a temporary copy, one after the other (stages that runs share come from the run cache), and writes
their metrics and details to `metrics/studies/scenes/<run>/`. `--until masks` leaves out the stages after that artefact.
Runs that are kept already are left out, so a killed study continues. `python -m tools.compare metrics/studies/scenes`
makes the table.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pipeline.run.errors import UserError
from pipeline.run.files import new_folder
from pipeline.run.stage import run_stage
from pipeline.scoring.artefacts import ARTEFACTS, EVALUATED
from pipeline.scoring.records import details_path

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
    arguments = parser.parse_args()
    artefacts = EVALUATED[: EVALUATED.index(arguments.until) + 1]
    for method in arguments.methods:
        for seed in arguments.seeds:
            words = [method, *(knob.replace("=", "-").replace("/", "_") for knob in arguments.knobs)]
            run = f"{arguments.name or '-'.join(words)}-seed{seed}"
            folder = STUDIES / arguments.study / run
            if not folder.exists():
                knobs = [f"method={method}", f"seed={seed}", *arguments.knobs]
                commit = run_experiment(f"{arguments.study}-{run}", knobs, artefacts)
                keep_metrics(commit, folder, ("classifier", *artefacts))


def run_experiment(name: str, knobs: Sequence[str], artefacts: Sequence[str]) -> str:
    """Evaluate some artefacts of one setting in a temporary copy; gives the git commit that holds the results.

    An experiment of this name that a killed study has left is replaced: what it ran comes from the run cache.

    Raises:
        UserError: the experiment failed.
    """
    name = experiment_name(name)
    print(f"== {name}: {' '.join(knobs)}", flush=True)
    head = git("rev-parse", "HEAD")
    ref = f"refs/exps/{head[:2]}/{head[2:]}/{name}"  # where DVC keeps the experiment
    git("update-ref", "-d", ref)
    words = [word for knob in knobs for word in ("-S", knob)]
    targets = [f"evaluate@{artefact}" for artefact in artefacts]
    if subprocess.run(["dvc", "exp", "run", "--temp", "--name", name, *words, *targets], check=False).returncode:
        raise UserError(f"the experiment {' '.join(knobs)} failed; see above")
    return git("rev-parse", "--verify", ref)


def experiment_name(text: str) -> str:
    """A text without what git does not allow in the name of a ref."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")


def git(*arguments: str) -> str:
    """What a git command prints."""
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def keep_metrics(commit: str, folder: Path, names: Sequence[str]) -> None:
    """Copy the metrics of some artefacts of an experiment, and their details, which rules and localizer have alone."""
    files = [Path(f"{name}.json") for name in names if name in ("classifier", *ARTEFACTS)]
    with new_folder(folder) as output:
        for path in [*files, *(details_path(Path(), name) for name in names)]:
            show = ["git", "show", f"{commit}:{Path('metrics') / path}"]
            content = subprocess.run(show, check=True, capture_output=True).stdout
            (output / path).parent.mkdir(exist_ok=True)
            (output / path).write_bytes(content)


if __name__ == "__main__":
    run_stage(main)
