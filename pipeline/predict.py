"""Stage predict: the segmentation network's masks of the validation photographs, without tags.

Test photographs, which have neither tags nor masks, are predicted too where the data set gives some
(`data.voc2012.test`); `tools.voc_archive` packs their masks for the evaluation server. `data/predictor` gets the
network with all that predictions of other photographs need:

    python -m pipeline.predict holiday/ *.jpg --out masks

Nothing is trained here, so other scales or another CRF retrain nothing. A photograph that is done is never done again
after a kill.
"""

from __future__ import annotations

import shutil
import sys
from importlib import import_module
from pathlib import Path

from tqdm import tqdm

from models.segmenters.segmenter import Segmenter
from pipeline.data.manifest import MANIFEST, PREPARED, TEST, Manifest, load_manifest, load_test
from pipeline.data.masks import whole, write_mask
from pipeline.data.photographs import Photographs
from pipeline.prediction.predictor import PredictConfig, Predictor, load_segmenter, predicted_labels, write_predictor
from pipeline.run.errors import UserError
from pipeline.run.files import new_folder
from pipeline.run.resume import resume_folder
from pipeline.run.runtime import Machine, barrier, rank, world_size
from pipeline.run.stage import run_distributed_stage, run_stage
from pipeline.run.told import told

INPUT, OUTPUT, TEST_OUTPUT = Path("data/segmenter"), Path("data/predictions"), Path("data/test_predictions")
PREDICTOR = Path("data/predictor")
COMMAND = "pipeline.prediction.command"  # for other photographs; no part of the stage's code, hence loaded by its name

__all__ = ["PredictConfig", "Predictor", "main"]


def main(machine: Machine) -> None:
    """Predict what is not there yet, then put all of it into place."""
    config = told("predict", PredictConfig)
    machine = machine.computing_in(config.inference_precision)
    inputs = [INPUT, *(PREPARED / name for name in (MANIFEST, TEST, "classes.json"))]
    with resume_folder("predict", config, inputs) as folder:
        network, masks = load_segmenter(INPUT, machine), folder / "masks"
        splits = {OUTPUT: load_manifest().split("val"), TEST_OUTPUT: load_test()}
        for split in splits.values():
            predict_split(network, split, config, masks, machine)
        barrier()
        if rank() == 0:
            write_predictor(PREDICTOR, INPUT, network, list(load_manifest().classes), config)
            for place, split in splits.items():
                with new_folder(place) as output:
                    for record in split.records:  # a killed run may have left a temporary file beside them
                        shutil.copyfile(masks / f"{record.id}.png", output / f"{record.id}.png")


def predict_split(
    network: Segmenter, manifest: Manifest, config: PredictConfig, output: Path, machine: Machine
) -> None:
    """Write the prediction of every photograph of a split that is not there yet; tags are not used.

    Raises:
        UserError: the network has diverged, or a photograph is not what `prepare_data` saw.
    """
    photographs = Photographs(manifest, machine.root)
    mine = manifest.records[rank() :: world_size()]
    for record in tqdm(mine, desc="predictions", disable=None):
        if not whole(path := output / f"{record.id}.png"):
            try:
                labels = predicted_labels(network, photographs.read(record), config, machine)
            except UserError as error:
                raise UserError(f"{record.id}: {error}") from error
            write_mask(path, labels)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_stage(import_module(COMMAND).main)
    else:
        run_distributed_stage(main)
