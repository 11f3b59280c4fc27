"""Stage train_affinity: pairwise affinity learned from confident seeds, for methods that have one.

First the confident labels of every training photograph: the maps against a strong and against a weak background, each
through the CRF, over one lattice; pixels on which the two disagree are ignored. Then the network learns which
neighbours carry the same label. `data/affinity` describes it in `network.json`; methods without one say `none` there.
"""

from __future__ import annotations

from pathlib import Path

import torch

from models.affinity.knobs import AffinityKnobs
from models.affinity.task import AffinityTask
from models.build import build
from models.registry import AFFINITIES, BACKBONES
from pipeline.data.dataset import LabelledViews
from pipeline.data.manifest import PREPARED, Manifest, load_manifest
from pipeline.maps.confident_labels import ConfidencePair, write_labels
from pipeline.run.files import new_folder, write_json
from pipeline.run.resume import resume_folder
from pipeline.run.runtime import Machine, barrier, derived_seed, rank
from pipeline.run.stage import run_distributed_stage
from pipeline.run.told import CrfTold, TrainingTold, told
from pipeline.scoring.charts import save_history
from pipeline.training.loop import fit
from pipeline.training.weights import load_initial, save_network

SEEDS, OUTPUT, PLOTS = Path("data/seeds"), Path("data/affinity"), Path("metrics/plots/affinity")


class TrainAffinityConfig(AffinityKnobs, TrainingTold, CrfTold):
    """What train_affinity is told."""


def main(machine: Machine) -> None:
    """Make the confident labels and train, or continue; nothing where the method has no affinity."""
    config = told("train_affinity", TrainAffinityConfig)
    machine = machine.computing_in(config.training_precision)
    if config.network not in AFFINITIES:
        if rank() == 0:
            with new_folder(OUTPUT) as output, new_folder(PLOTS) as plots:
                write_json(output / "network.json", {"network": "none"})
                save_history(plots, [])
        return
    manifest = load_manifest().split("train")
    with resume_folder("train_affinity", config, [PREPARED / "manifest.csv", SEEDS]) as folder:
        labels = confident_labels(config, manifest, folder, machine)
        torch.manual_seed(derived_seed("affinity", config.seed))
        description = {"network": config.network, "backbone": config.backbone, "reading": config.reading}
        network = build(description)
        load_initial(
            network.backbone,
            config.backbone,
            config.weights,
            BACKBONES[config.backbone].imagenet,
            config.weights_sha256,
        )
        normalisation = (network.backbone.mean, network.backbone.std)
        views = LabelledViews(manifest, machine.root, config.augmentation, normalisation, labels)
        task = AffinityTask(network, config.optimisation, config.radius)
        history = fit(task, views, config.optimisation, config.seed, folder, machine)
        if rank() == 0:
            with new_folder(OUTPUT) as output:
                save_network(output, network, description)
            with new_folder(PLOTS) as plots:
                save_history(plots, history)


def confident_labels(config: TrainAffinityConfig, manifest: Manifest, folder: Path, machine: Machine) -> Path:
    """The folder with the confident labels of every photograph, made where they are missing."""
    labels = folder / "labels"
    if rank() == 0:
        first, second = config.confidence_pair
        pair = ConfidencePair(config.labels, (first, second), config.crf, config.max_side, config.crf_reference)
        write_labels(manifest, SEEDS, pair, labels, machine.root, machine.workers)
    barrier()
    return labels


if __name__ == "__main__":
    run_distributed_stage(main)
