"""Stage configure: check params.yaml whole, then write what each later stage is told.

The only stage that depends on params.yaml and on the project's code. Every later stage depends on its own
`data/config/<stage>.json`, which holds its knobs and the digest of the code that it runs. Its bytes stay the same while
nothing that the stage uses has changed, so DVC skips it or takes it from the run cache.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.config.load import load_params
from pipeline.config.params import Params
from pipeline.config.stages import code_records, initial_weights, is_file, outside_folders, runtime, stage_configs
from pipeline.run.errors import UserError, listed
from pipeline.run.files import expanded, write_json
from pipeline.run.source import RECORDS
from pipeline.run.stage import run_stage
from pipeline.run.told import CONFIG

INSTALLED = "package:"
"""What sources of ImageNet weights begin with that lie on the machine already (`models.registry`)."""


def main() -> None:
    """Write the resolved configuration of every stage, and `runtime.json` and `code.json`, on which none depends."""
    params = load_params(Path("params.yaml"))
    check_weights(params)
    check_folders(params)
    for stage, config in stage_configs(params).items():
        write_json(CONFIG / f"{stage}.json", config)
    write_json(CONFIG / "runtime.json", runtime(params).model_dump())
    write_json(RECORDS, code_records(params))


def check_weights(params: Params) -> None:
    """Refuse initial weights that cannot be had, before any work; those that a library must fetch are fetched now.

    Raises:
        UserError: a file is missing, damaged or of another network, or no library carries the ImageNet weights of a
            network, or they cannot be fetched; all are named at once.
    """
    problems = []
    for group, (network, imagenet, weights) in initial_weights(params).items():
        try:
            check_start(network, imagenet, weights)
        except UserError as error:
            problems.append(f"{group}.weights = {weights}: {error}")
    if problems:
        raise UserError("initial weights are missing:\n" + listed(problems))


def check_folders(params: Params) -> None:
    """Refuse folders of other tools' files that are none; the stages that read the files look at them.

    Raises:
        UserError: saying so.
    """
    for knob, (folder, endings) in outside_folders(params).items():
        files = " or ".join(f"<id>{ending}" for ending in endings)
        if not any(path.suffix in endings for path in expanded(folder).glob("*")):
            raise UserError(f"{knob} = {folder}: no such folder, or no such file in it; give a folder of {files}")


def check_start(network: str, imagenet: str | None, weights: str) -> None:
    """Refuse initial weights of one network that cannot be had; PyTorch is loaded only where it must look at a file.

    Raises:
        UserError: saying what is wrong and what to do.
    """
    if weights.lower() in ("imagenet", "coco"):
        if imagenet is None or weights.lower() == "coco":
            raise UserError(f"no library carries those of {network}; give the authors' file")
        if not imagenet.startswith(INSTALLED):
            from pipeline.training.imagenet import fetch_imagenet

            fetch_imagenet(network, imagenet)
    elif is_file(weights):
        if not expanded(weights).is_file():
            raise UserError("no such file; give imagenet, none, or a path")
        from pipeline.training.weights import check_file

        check_file(network, weights)


if __name__ == "__main__":
    run_stage(main)
