"""Stage configure: check params.yaml whole, then write what each later stage is told.

The only stage that depends on params.yaml and on the project's code. Every later stage depends on its own
`data/config/<stage>.json`, which holds its knobs and the digest of the code that it runs. Its bytes stay the same while
nothing that the stage uses has changed, so DVC skips it or takes it from the run cache.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.config.load import load_params
from pipeline.config.params import Params
from pipeline.config.stages import code_records, initial_weights, runtime, stage_configs
from pipeline.run.errors import UserError, listed
from pipeline.run.files import write_json
from pipeline.run.source import RECORDS
from pipeline.run.stage import run_stage
from pipeline.run.told import CONFIG


def main() -> None:
    """Write the resolved configuration of every stage, and `runtime.json` and `code.json`, on which none depends."""
    params = load_params(Path("params.yaml"))
    check_weights(params)
    for stage, config in stage_configs(params).items():
        write_json(CONFIG / f"{stage}.json", config)
    write_json(CONFIG / "runtime.json", runtime(params).model_dump())
    write_json(RECORDS, code_records(params))


def check_weights(params: Params) -> None:
    """Refuse initial weights that cannot be had, before any work.

    Raises:
        UserError: a file is missing, or no library carries the ImageNet weights of a network; all are named at once.
    """
    problems = []
    for group, (network, imagenet, weights) in initial_weights(params).items():
        if weights == "imagenet" and imagenet is None:
            problems.append(
                f"{group}.weights = imagenet: no library carries those of {network}; give the authors' file"
            )
        elif weights.lower() not in ("imagenet", "none") and not Path(weights).is_file():
            problems.append(f"{group}.weights = {weights}: no such file; give imagenet, none, or a path")
    if problems:
        raise UserError("initial weights are missing:\n" + listed(problems))


if __name__ == "__main__":
    run_stage(main)
