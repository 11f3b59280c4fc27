"""Stage train_segmenter: a segmentation network learns from the pseudo masks.

Reads photographs, tags of neither split, and `data/masks`. The network `localizer` has learned already, beside the
maps: nothing is trained, and `data/localizer` is handed on.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from models.build import build, segmenter_description
from models.labels import IGNORE
from models.registry import Network, segmenter_network
from models.segmenters.knobs import SegmenterKnobs
from models.segmenters.task import SegmenterTask
from pipeline.data.dataset import LabelledViews
from pipeline.data.manifest import PREPARED, Manifest, load_manifest
from pipeline.data.masks import read_mask
from pipeline.run.errors import UserError
from pipeline.run.files import new_folder
from pipeline.run.resume import resume_folder
from pipeline.run.runtime import Machine, barrier, derived_seed, rank, world_size
from pipeline.run.stage import run_distributed_stage
from pipeline.run.told import TrainingTold, told
from pipeline.scoring.charts import save_history
from pipeline.training.loop import History, fit
from pipeline.training.weights import load_initial, save_network

MASKS, LOCALIZER = Path("data/masks"), Path("data/localizer")
OUTPUT, PLOTS = Path("data/segmenter"), Path("metrics/plots/segmenter_training")
NETWORK = ("network.json", "weights.safetensors")


class TrainSegmenterConfig(SegmenterKnobs, TrainingTold):
    """What train_segmenter is told."""


def main(machine: Machine) -> None:
    """Train, or continue training."""
    config = told("train_segmenter", TrainSegmenterConfig)
    machine = machine.computing_in(config.training_precision)
    manifest = load_manifest()
    own = segmenter_network(config.network)
    inputs = [
        PREPARED / "manifest.csv",
        PREPARED / "classes.json",
        *([MASKS] if own else [LOCALIZER / name for name in NETWORK]),
    ]
    with resume_folder("train_segmenter", config, inputs) as folder:
        history = train(own, manifest, config, folder, machine) if own else take_localizer(folder)
        if rank() == 0:
            with new_folder(OUTPUT) as output:
                shutil.copytree(folder / "network", output, dirs_exist_ok=True)
            with new_folder(PLOTS) as plots:
                save_history(plots, history)


def train(chosen: Network, manifest: Manifest, config: TrainSegmenterConfig, folder: Path, machine: Machine) -> History:
    """Train the chosen network on the masks; it goes into `<folder>/network`."""
    check_masks(manifest.split("train"))
    if not chosen.alone:
        size = min(config.optimisation.batch, len(manifest.split("train").records))
        check_batch(size, config.optimisation.accumulate)
    description = segmenter_description(config.network, len(manifest.classes) + 1)
    torch.manual_seed(derived_seed("segmenter", config.seed))
    network = build(description)
    load_initial(network, config.network, config.weights, chosen.imagenet, config.weights_sha256)
    normalisation = (network.mean, network.std)
    views = LabelledViews(manifest.split("train"), machine.root, config.augmentation, normalisation, MASKS)
    task = SegmenterTask(network, config.optimisation, config.loss)
    history = fit(task, views, config.optimisation, config.seed, folder, machine)
    if rank() == 0:
        with new_folder(folder / "network") as output:
            save_network(output, network, description)
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


def check_batch(size: int, parts: int) -> None:
    """Refuse batches that leave fewer than two photographs at a time: batch normalisation needs more than one value.

    Args:
        size: photographs of a batch, over all processes.
        parts: that each process computes a batch in.

    Raises:
        UserError: saying what to change.
    """
    if size // (world_size() * parts) < 2:
        raise UserError(
            f"a batch of {size} photographs in {parts} parts leaves each of {world_size()} processes fewer than two, "
            "which the batch normalisation of this segmentation network needs; raise segmenter.optimisation.batch or "
            "the number of training photographs, or lower segmenter.optimisation.accumulate or processes"
        )


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


if __name__ == "__main__":
    run_distributed_stage(main)
