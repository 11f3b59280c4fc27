"""Run the pipeline for several settings and seeds, and keep the metrics of every run for a table.

`python -m tools.study scenes --methods cam irn --seeds 0 1 2 --set data.limit=100` runs one DVC experiment for each
method and seed in a temporary copy, one after the other (stages that runs share come from the run cache), and writes
their metrics to `metrics/studies/scenes/<run>/`. `--until masks` leaves out the stages after that artefact. Runs whose
metrics are there already are left out, so a killed study continues. `python -m tools.compare metrics/studies/scenes`
makes the table.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pipeline.run.errors import UserError
from pipeline.run.files import new_folder
from pipeline.run.stage import run_stage
from pipeline.scoring.artefacts import EVALUATED


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="name of the study: its metrics go to metrics/studies/<name>")
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
            folder = Path("metrics/studies") / arguments.study / run
            if not folder.exists():
                knobs = [f"method={method}", f"seed={seed}", *arguments.knobs]
                keep_metrics(run_experiment(knobs, artefacts), folder, ("classifier", *artefacts))


def run_experiment(knobs: list[str], artefacts: Sequence[str]) -> str:
    """Evaluate some artefacts of one setting in a temporary copy; gives the git commit that holds the results.

    Raises:
        UserError: the experiment failed.
    """
    print(f"== {' '.join(knobs)}", flush=True)
    before = experiments()
    words = [word for knob in knobs for word in ("-S", knob)]
    targets = [f"evaluate@{artefact}" for artefact in artefacts]
    if subprocess.run(["dvc", "exp", "run", "--temp", *words, *targets], check=False).returncode:
        raise UserError(f"the experiment {' '.join(knobs)} failed; see above")
    new = experiments() - before
    if len(new) != 1:
        raise UserError(f"the experiment {' '.join(knobs)} left no result of its own; was it run before?")
    return new.pop()


def experiments() -> set[str]:
    """Commits of all stored experiments."""
    listing = ["git", "for-each-ref", "--format=%(objectname)", "refs/exps/??/*/*"]
    return set(subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split())


def keep_metrics(commit: str, folder: Path, names: Sequence[str]) -> None:
    """Copy some metrics of an experiment."""
    with new_folder(folder) as output:
        for name in names:
            path = f"{commit}:metrics/{name}.json"
            content = subprocess.run(["git", "show", path], check=True, capture_output=True).stdout
            (output / f"{name}.json").write_bytes(content)


if __name__ == "__main__":
    run_stage(main)
