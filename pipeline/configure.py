"""Stage configure: check params.yaml whole, then write what each later stage is told.

The only stage that depends on params.yaml. Every later stage depends on its own `data/config/<stage>.json`, whose
bytes stay the same while nothing that the stage uses has changed, so DVC skips it or takes it from the run cache.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.config import CONFIG, STAGES, load_params, runtime, stage_configs
from pipeline.files import write_json
from pipeline.stage import run_stage


def main() -> None:
    """Write the resolved configuration of every stage, and `runtime.json`, on which no stage depends."""
    params = load_params(Path("params.yaml"))
    for stage, config in stage_configs(params).items():
        STAGES[stage].model_validate(config)
        write_json(CONFIG / f"{stage}.json", config)
    write_json(CONFIG / "runtime.json", runtime(params).model_dump())


if __name__ == "__main__":
    run_stage(main)
