"""Stage train_affinity: pairwise affinity learned from confident seeds, for methods that have one.

First the confident labels of every training photograph: the maps against a strong and against a weak background, each
through the CRF, over one lattice; pixels on which the two disagree are ignored. Then the network learns which
neighbours carry the same label. `data/affinity` describes it in `network.json`; methods without one say `none` there.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from models.affinity.networks import AFFINITY_NETWORKS, BoundaryAffinity, FeatureAffinity
from pipeline.config.params import TrainAffinityConfig, stage_config
from pipeline.data.dataset import MaskedExamples
from pipeline.data.manifest import PREPARED, load_manifest
from pipeline.maps.confident_labels import ConfidencePair, write_labels
from pipeline.run.files import new_folder, write_json
from pipeline.run.resume import resume_folder
from pipeline.run.runtime import barrier, derived_seed, rank
from pipeline.run.stage import run_distributed_stage
from pipeline.scoring.charts import save_history, save_table
from pipeline.training.loop import Batch, fit
from pipeline.training.weights import load_initial, save_network

SEEDS, OUTPUT, PLOTS = Path("data/seeds"), Path("data/affinity"), Path("metrics/plots/affinity")


def main() -> None:
    """Make the confident labels and train, or continue; nothing where the method has no affinity."""
    config = stage_config("train_affinity", TrainAffinityConfig)
    if config.network == "none":
        if rank() == 0:
            with new_folder(OUTPUT) as output, new_folder(PLOTS) as plots:
                write_json(output / "network.json", {"network": "none"})
                save_table(plots / "history.csv", {"epoch": [], "lr": [], "loss": []})
        return
    manifest = load_manifest().split("train")
    with resume_folder("train_affinity", config, [PREPARED / "manifest.csv", SEEDS]) as folder:
        labels = folder / "labels"
        if rank() == 0:
            kind: Literal["alphas", "thresholds"] = "alphas" if config.network == "affinitynet" else "thresholds"
            first, second = config.confidence_pair
            pair = ConfidencePair(kind, (first, second), config.crf, config.max_side)
            write_labels(manifest, SEEDS, pair, labels)
        barrier()
        torch.manual_seed(derived_seed("affinity", config.seed))
        description = {"network": config.network, "backbone": config.backbone, "reading": config.reading}
        network = AFFINITY_NETWORKS[config.network](config.backbone, config.reading)
        load_initial(network.backbone, config.backbone, config.weights)
        normalisation = (network.backbone.mean, network.backbone.std)
        examples = MaskedExamples(manifest, labels, config.augmentation, normalisation)
        objective = partial(pair_objective, network, config.radius)
        history = fit(network, network.head, objective, examples, config.optimisation, config.seed, folder)
        if rank() == 0:
            with new_folder(OUTPUT) as output:
                save_network(output, network, description)
            with new_folder(PLOTS) as plots:
                save_history(plots, history)


def pair_objective(
    network: FeatureAffinity | BoundaryAffinity, radius: int, trained: nn.Module, batch: Batch
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of the pairs of a batch; `trained` is the network, perhaps wrapped for several processes."""
    return network.loss(trained(batch["image"]), batch["labels"], radius)


if __name__ == "__main__":
    run_distributed_stage(main)
