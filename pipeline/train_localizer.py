"""Stage train_localizer: the second training of methods that have one.

A rule takes the trained classifier and writes the network that extract_cams reads, in the same form. Methods without
a second training use the rule `none`: their classifier is their localizer.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from pipeline.config import TrainLocalizerConfig, stage_config
from pipeline.files import new_folder
from pipeline.runtime import rank
from pipeline.stage import run_distributed_stage

INPUT, OUTPUT = Path("data/classifier"), Path("data/localizer")


def classifier_as_localizer(config: TrainLocalizerConfig, output: Path) -> None:
    """Pass the classifier through."""
    for name in ("network.json", "weights.safetensors"):
        shutil.copyfile(INPUT / name, output / name)


RULES: dict[str, Callable[[TrainLocalizerConfig, Path], None]] = {"none": classifier_as_localizer}


def main() -> None:
    """Apply the rule of the method."""
    config = stage_config("train_localizer", TrainLocalizerConfig)
    if rank() == 0:
        with new_folder(OUTPUT) as output:
            RULES[config.rule](config, output)


if __name__ == "__main__":
    run_distributed_stage(main)
