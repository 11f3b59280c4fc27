"""Stage predict: the segmentation network's masks of the validation photographs, without tags.

Test photographs, which have neither tags nor masks, are predicted too where the data set gives some
(`data.voc2012.test`); `tools.voc_archive` packs their masks for the evaluation server.

Nothing is trained here, so other scales or another CRF retrain nothing. A photograph that is done is never done again
after a kill.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from models.kernels import kernels_for
from models.segmenters.knobs import PredictKnobs
from models.segmenters.predictions import predict
from models.segmenters.segmenter import Segmenter
from pipeline.data.dataset import resized_view
from pipeline.data.images import view_size
from pipeline.data.manifest import MANIFEST, PREPARED, TEST, Manifest, Record, load_manifest, load_test
from pipeline.data.masks import whole, write_mask
from pipeline.data.photographs import Photographs
from pipeline.maps.background import hard_channels
from pipeline.maps.crf import dense_crf, softmax_energies
from pipeline.run.errors import UserError
from pipeline.run.files import new_folder, read_json
from pipeline.run.resume import resume_folder
from pipeline.run.runtime import Machine, barrier, rank, world_size
from pipeline.run.stage import run_distributed_stage
from pipeline.run.told import CrfTold, InferenceTold, told
from pipeline.training.weights import load_network

INPUT, OUTPUT, TEST_OUTPUT = Path("data/segmenter"), Path("data/predictions"), Path("data/test_predictions")

Labels = NDArray[np.uint8]


class PredictConfig(PredictKnobs, CrfTold, InferenceTold):
    """What predict is told.

    Attributes:
        background: whether pixels may belong to no class.
    """

    background: bool = True


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
            for place, split in splits.items():
                with new_folder(place) as output:
                    for record in split.records:  # a killed run may have left a temporary file beside them
                        shutil.copyfile(masks / f"{record.id}.png", output / f"{record.id}.png")


def load_segmenter(folder: Path, machine: Machine) -> Segmenter:
    """The network that train_segmenter left, on its device and ready to predict.

    Raises:
        UserError: it is a localizer that does not segment.
    """
    network = load_network(folder, "train_segmenter")
    segmenter = network if isinstance(network, Segmenter) else network.segmenter()
    if segmenter is None:
        trained = read_json(folder / "network.json", "train_segmenter")["network"]
        raise UserError(
            f"segmenter.network = localizer needs a localizer that segments, but {trained} does not; choose another "
            "segmenter.network"
        )
    return segmenter.to(machine.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def predict_split(
    network: Segmenter, manifest: Manifest, config: PredictConfig, output: Path, machine: Machine
) -> None:
    """Write the prediction of every photograph of a split that is not there yet; tags are not used."""
    photographs = Photographs(manifest, machine.root)
    mine = manifest.records[rank() :: world_size()]
    for record in tqdm(mine, desc="predictions", disable=None):
        if not whole(path := output / f"{record.id}.png"):
            write_mask(path, predicted_labels(network, photographs.read(record), record, config, machine))


def predicted_labels(
    network: Segmenter, image: Labels, record: Record, config: PredictConfig, machine: Machine
) -> Labels:
    """The prediction (H, W) for one photograph: scales, mirror images and CRF as the knobs say."""
    views = []
    for scale in config.scales:
        size = view_size(record.size, scale, config.long_side, config.square)
        views.append(resized_view(image, size, (network.mean, network.std)).to(machine.device))
    with machine.autocast():
        probabilities = predict(network, views, record.size, config.fusion, config.flip).float().cpu().numpy()
    if not np.isfinite(probabilities).all():
        raise UserError(f"{record.id}: the prediction is not finite; the network has diverged: lower its learning rate")
    first = 0 if config.background else 1  # label 0 takes no part where every pixel belongs to a class
    probabilities = probabilities[first:]
    kernels = kernels_for(config.crf, record.size, config.crf_reference, config.crf_iterations)
    if kernels is None:
        return hard_channels(probabilities) + np.uint8(first)
    (marginals,) = dense_crf(image, [softmax_energies(probabilities)], kernels)
    return hard_channels(marginals) + np.uint8(first)


if __name__ == "__main__":
    run_distributed_stage(main)
