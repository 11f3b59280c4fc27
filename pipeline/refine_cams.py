"""Stage refine_cams: a propagation rule on the CAM store, with the affinity that the method learned.

A rule reads the seeds' store and writes one of the same form. The rule `none` hands the seeds on as they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from pipeline.cam_store import shards
from pipeline.config import Refine, stage_config
from pipeline.files import new_folder
from pipeline.runtime import rank
from pipeline.stage import run_distributed_stage

INPUT, OUTPUT = Path("data/seeds"), Path("data/refined")


def unchanged(config: Refine, output: Path) -> None:
    """Hand the seeds on."""
    for shard in shards(INPUT):
        shutil.copyfile(shard, output / shard.name)


RULES: dict[str, Callable[[Refine, Path], None]] = {"none": unchanged}


def main() -> None:
    """Apply the rule of the method."""
    config = stage_config("refine_cams", Refine)
    if rank() == 0:
        with new_folder(OUTPUT) as output:
            RULES[config.rule](config, output)


if __name__ == "__main__":
    run_distributed_stage(main)
