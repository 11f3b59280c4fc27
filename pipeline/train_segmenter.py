"""Stage train_segmenter: a segmentation network learns from the pseudo masks, then predicts the validation split.

Reads photographs, tags of neither split, and `data/masks`; writes the network and the predictions as palette PNG. The
network `localizer` has learned already, beside the maps: nothing is trained, and `data/localizer` predicts.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from models.build import build
from models.kernels import KERNELS
from models.labels import IGNORE
from models.registry import SEGMENTERS
from models.segmenters.knobs import SegmenterKnobs
from models.segmenters.segmenter import Segmenter, predict
from models.segmenters.task import SegmenterTask
from pipeline.data.dataset import LabelledViews, Photographs, resized_view
from pipeline.data.images import SMALLEST_SIDE, scaled_size
from pipeline.data.manifest import PREPARED, Manifest, Record, load_manifest
from pipeline.data.masks import read_mask, write_mask
from pipeline.maps.background import hard_channels
from pipeline.maps.crf import dense_crf, softmax_energies
from pipeline.run.errors import UserError
from pipeline.run.files import new_folder, read_json
from pipeline.run.resume import resume_folder
from pipeline.run.runtime import Machine, barrier, derived_seed, rank, world_size
from pipeline.run.stage import run_distributed_stage
from pipeline.run.told import Seeded, told
from pipeline.scoring.charts import save_history
from pipeline.training.loop import History, fit
from pipeline.training.weights import load_initial, load_network, save_network

MASKS, LOCALIZER = Path("data/masks"), Path("data/localizer")
OUTPUT, PLOTS = Path("data/segmenter"), Path("metrics/plots/segmenter_training")
NETWORK = ("network.json", "weights.safetensors")


class TrainSegmenterConfig(SegmenterKnobs, Seeded):
    """What train_segmenter is told."""


def main(machine: Machine) -> None:
    """Train, or continue training, and predict."""
    config = told("train_segmenter", TrainSegmenterConfig)
    manifest = load_manifest()
    own = config.network in SEGMENTERS
    inputs = [
        PREPARED / "manifest.csv",
        PREPARED / "classes.json",
        *([MASKS] if own else [LOCALIZER / name for name in NETWORK]),
    ]
    with resume_folder("train_segmenter", config, inputs) as folder:
        history = train(manifest, config, folder, machine) if own else take_localizer(folder)
        predictions = folder / "predictions"
        predict_split(load_segmenter(folder / "network", machine), manifest.split("val"), config, predictions, machine)
        barrier()
        if rank() == 0:
            with new_folder(OUTPUT) as output:
                shutil.copytree(folder / "network", output, dirs_exist_ok=True)
                shutil.copytree(predictions, output / "predictions")
            with new_folder(PLOTS) as plots:
                save_history(plots, history)


def train(manifest: Manifest, config: TrainSegmenterConfig, folder: Path, machine: Machine) -> History:
    """Train on the masks; the network goes into `<folder>/network`."""
    check_masks(manifest.split("train"))
    description = {"network": config.network, "labels": len(manifest.classes) + 1}
    torch.manual_seed(derived_seed("segmenter", config.seed))
    network = build(description)
    load_initial(network, config.network, config.weights, SEGMENTERS[config.network].imagenet)
    normalisation = (network.mean, network.std)
    views = LabelledViews(manifest.split("train"), machine.root, config.augmentation, normalisation, MASKS)
    task = SegmenterTask(network, config.optimisation)
    history = fit(task, views, config.optimisation, config.seed, folder, machine)
    if rank() == 0:
        save_network(folder / "network", network, description)
    barrier()
    return history


def take_localizer(folder: Path) -> History:
    """Put the localizer into `<folder>/network`; nothing is trained."""
    if rank() == 0:
        with new_folder(folder / "network") as output:
            for name in NETWORK:
                shutil.copyfile(LOCALIZER / name, output / name)
    barrier()
    return []


def load_segmenter(folder: Path, machine: Machine) -> Segmenter:
    """The network of this stage, on its device and ready to predict.

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


def check_masks(manifest: Manifest) -> None:
    """Refuse to train on masks that hold no class at all.

    Raises:
        UserError: every pixel of every mask is background or ignored.
    """
    for record in manifest.records:
        labels = np.unique(read_mask(MASKS / f"{record.id}.png", record.size))
        if set(labels.tolist()) - {0, IGNORE}:
            return
    raise UserError(
        f"all {len(manifest.records)} masks in {MASKS} are background only, so there is nothing to learn; lower "
        "bg_thresh, and look at metrics/seeds.json and metrics/plots/seeds"
    )


def predict_split(
    network: Segmenter, manifest: Manifest, config: TrainSegmenterConfig, output: Path, machine: Machine
) -> None:
    """Write the prediction of every photograph of a split that is not there yet; tags are not used."""
    photographs = Photographs(manifest, machine.root)
    mine = manifest.records[rank() :: world_size()]
    for record in tqdm(mine, desc="predictions", disable=None):
        if not (path := output / f"{record.id}.png").exists():
            write_mask(path, predicted_labels(network, photographs, record, config, machine))


def predicted_labels(
    network: Segmenter, photographs: Photographs, record: Record, config: TrainSegmenterConfig, machine: Machine
) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """The prediction (H, W) for one photograph: several scales, mirror images, CRF where the knob says so."""
    image = photographs.read(record)
    height, width = scaled_size(record.size, config.test_long_side)
    views = []
    for scale in config.test_scales:
        size = scaled_size((height, width), max(height, width) * scale, SMALLEST_SIDE)
        view = resized_view(image, size, (network.mean, network.std)).to(machine.device)
        views.append(view)
    with machine.autocast():
        probabilities = predict(network, views, record.size).float().cpu().numpy()
    if config.test_crf is None:
        return hard_channels(probabilities)
    (marginals,) = dense_crf(image, [softmax_energies(probabilities)], KERNELS[config.test_crf])
    return hard_channels(marginals)


if __name__ == "__main__":
    run_distributed_stage(main)
