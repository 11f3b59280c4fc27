"""Stage train_localizer: the second training of methods that have one.

A rule takes the trained classifier and writes the network that extract_cams reads, in the same form. Methods without
a second training use the rule `none`: their classifier is their localizer. The rule `toco` is a whole training of its
own, without a classifier. Rules may leave maps of a few photographs after every epoch in `epochs/`, which
`evaluate localizer` scores, and charts in `plots/` for the report; training itself never reads a mask.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from models.bao.task import CLASSIFIER, train_amn, train_bao
from models.esol.task import train_esol
from models.toco.task import train_toco
from pipeline.config.params import TrainLocalizerConfig, stage_config
from pipeline.data.manifest import PREPARED
from pipeline.run.files import new_folder
from pipeline.run.resume import resume_folder
from pipeline.run.runtime import rank
from pipeline.run.stage import run_distributed_stage
from pipeline.scoring.charts import save_history
from pipeline.training.loop import History

OUTPUT, PLOTS = Path("data/localizer"), Path("metrics/plots/localizer_training")


def pass_classifier(config: TrainLocalizerConfig, folder: Path) -> History:
    """The classifier is the localizer."""
    result = folder / "result"
    if rank() == 0:
        shutil.rmtree(result, ignore_errors=True)
        shutil.copytree(CLASSIFIER, result)
    return []


RULES: dict[str, Callable[[TrainLocalizerConfig, Path], History]] = {
    "none": pass_classifier,
    "amn": train_amn,
    "bao": train_bao,
    "toco": train_toco,
    "esol": train_esol,
}


def main() -> None:
    """Apply the rule of the method; its result in `<resume folder>/result` goes into place."""
    config = stage_config("train_localizer", TrainLocalizerConfig)
    inputs = [CLASSIFIER, PREPARED / "manifest.csv", PREPARED / "classes.json"]
    with resume_folder("train_localizer", config, inputs) as folder:
        history = RULES[config.rule](config, folder)
        if rank() == 0:
            with new_folder(OUTPUT) as output:
                shutil.copytree(folder / "result", output, dirs_exist_ok=True)
            with new_folder(PLOTS) as plots:
                save_history(plots, history)
                if (folder / "plots").exists():
                    shutil.copytree(folder / "plots", plots, dirs_exist_ok=True)


if __name__ == "__main__":
    run_distributed_stage(main)
