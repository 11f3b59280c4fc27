"""Stage configure: check params.yaml whole, then write what each later stage is told.

The only stage that depends on params.yaml. Every later stage depends on its own `data/config/<stage>.json`, whose
bytes stay the same while nothing that the stage uses has changed, so DVC skips it or takes it from the run cache.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.config.params import CONFIG, STAGES, Params, load_params, runtime, stage_configs
from pipeline.run.errors import UserError, listed
from pipeline.run.files import write_json
from pipeline.run.stage import run_stage

WITHOUT_LIBRARY = ("conformer", "resnet38", "vit_test")


def main() -> None:
    """Write the resolved configuration of every stage, and `runtime.json`, on which no stage depends."""
    params = load_params(Path("params.yaml"))
    check_weights(params)
    for stage, config in stage_configs(params).items():
        STAGES[stage].model_validate(config)
        write_json(CONFIG / f"{stage}.json", config)
    write_json(CONFIG / "runtime.json", runtime(params).model_dump())


def check_weights(params: Params) -> None:
    """Refuse initial weights that cannot be had, before any work.

    Raises:
        UserError: a file is missing, or no library carries the ImageNet weights of a network; all are named at once.
    """
    wanted: dict[str, tuple[str, str]] = {
        stage: (group.network, group.weights)
        for stage, group in (("classifier", params.classifier), ("segmenter", params.segmenter))
        if group.network not in ("none", "localizer")
    }
    if params.affinity.network != "none":
        wanted["affinity"] = (params.affinity.backbone, params.affinity.weights)
    if params.localizer.rule in ("amn", "toco"):
        wanted["localizer"] = (params.localizer.backbone, params.localizer.weights)
    branch = params.localizer.toco.branch
    if params.localizer.rule == "toco" and branch.network is not None:
        wanted["localizer.toco.branch"] = (branch.network, branch.weights)
    problems = []
    for stage, (network, weights) in wanted.items():
        if weights == "imagenet" and network.startswith(WITHOUT_LIBRARY):
            problems.append(
                f"{stage}.weights = imagenet: no library carries those of {network}; give the authors' file"
            )
        elif weights.lower() not in ("imagenet", "none") and not Path(weights).is_file():
            problems.append(f"{stage}.weights = {weights}: no such file; give imagenet, none, or a path")
    if problems:
        raise UserError("initial weights are missing:\n" + listed(problems))


if __name__ == "__main__":
    run_stage(main)
