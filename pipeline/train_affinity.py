"""Stage train_affinity: pairwise affinity learned from confident seeds, for methods that have one.

`data/affinity` describes the network in `network.json`; methods without an affinity say `none` there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.config import TrainAffinityConfig, stage_config
from pipeline.files import new_folder, write_json
from pipeline.runtime import rank
from pipeline.stage import run_distributed_stage

OUTPUT = Path("data/affinity")


def no_affinity(config: TrainAffinityConfig, output: Path) -> None:
    """The method learns no affinity."""
    write_json(output / "network.json", {"network": "none"})


NETWORKS: dict[str, Callable[[TrainAffinityConfig, Path], None]] = {"none": no_affinity}


def main() -> None:
    """Train the affinity of the method."""
    config = stage_config("train_affinity", TrainAffinityConfig)
    if rank() == 0:
        with new_folder(OUTPUT) as output:
            NETWORKS[config.network](config, output)


if __name__ == "__main__":
    run_distributed_stage(main)
