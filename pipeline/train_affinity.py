"""Stage train_affinity: pairwise affinity learned from confident seeds, for methods that have one.

First the confident labels of every training photograph: the maps against a strong and against a weak background, each
through the CRF, over one lattice; pixels on which the two disagree are ignored. Then the network learns which
neighbours carry the same label. `data/affinity` describes it in `network.json`; methods without one say `none` there.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.affinity_networks import AFFINITY_NETWORKS, BoundaryAffinity, FeatureAffinity
from models.pairs import affinity_label
from pipeline.background import confident_channels, labels_of_channels, power_background, with_background
from pipeline.cam_store import fused_maps, read_entry
from pipeline.charts import save_history, save_table
from pipeline.config import Runtime, TrainAffinityConfig, stage_config
from pipeline.crf import KERNELS, crf_channels, dense_crf, softmax_energies
from pipeline.examples import MaskedExamples, read_photograph
from pipeline.files import new_folder, write_json
from pipeline.images import resize_image, resize_labels, scaled_size
from pipeline.manifest import PREPARED, Manifest, Record, load_manifest
from pipeline.palette import write_mask
from pipeline.pool import map_photographs
from pipeline.resume import resume_folder
from pipeline.runtime import barrier, derived_seed, rank
from pipeline.stage import run_distributed_stage
from pipeline.training import Batch, fit
from pipeline.weights import load_initial, save_network

SEEDS, OUTPUT, PLOTS = Path("data/seeds"), Path("data/affinity"), Path("metrics/plots/affinity")

Labels = NDArray[np.uint8]


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
            write_labels(manifest, config, labels)
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


# -------------------------------------------------------------------------------------------------- confident labels


def write_labels(manifest: Manifest, config: TrainAffinityConfig, folder: Path) -> None:
    """Write the confident labels of every photograph that has none yet, in a pool of processes."""
    missing = [record for record in manifest.records if not (folder / f"{record.id}.png").exists()]
    if missing:
        root = Path(str(stage_config("runtime", Runtime).root))
        job = partial(write_label, config=config, root=root, folder=folder)
        map_photographs(job, SEEDS, missing, "confident labels")


def write_label(shard: Path, record: Record, config: TrainAffinityConfig, root: Path, folder: Path) -> None:
    """Write the confident labels of one photograph as a palette PNG."""
    entry = read_entry(shard, record.id)
    size = scaled_size(record.size, min(config.max_side, max(record.size)))
    channels = np.zeros(size, dtype=np.uint8)
    if entry.class_ids:
        image = resize_image(read_photograph(root, record), size)
        channels = confident_labels(image, fused_maps(entry, size)[0], config)
    labels = labels_of_channels(channels, entry.class_ids)
    write_mask(folder / f"{record.id}.png", resize_labels(labels, record.size))


def confident_labels(image: Labels, maps: NDArray[np.float32], config: TrainAffinityConfig) -> Labels:
    """The channel that two runs of the CRF agree on, 255 where they do not.

    AffinityNet: backgrounds (1 - strongest class) ** alpha for the pair of alphas, probabilities as energies.
    IRN: constant backgrounds for the pair of thresholds, hard labels as energies.

    Args:
        image: (H, W, 3) uint8.
        maps: (K, H, W) in [0, 1], K >= 1.
        config: which network, its pair, the kernels.

    Returns:
        (H, W) uint8: 0 background, k the k-th map, 255 not sure.

    Source: Ahn & Kwak, CVPR 2018, section 3.2 (released: alphas 4 and 32); Ahn, Cho & Kwak, CVPR 2019, section 4.2
    (released: thresholds 0.30 and 0.05). AffinityNet's labels are taken pixel by pixel and reduced to the grid
    later; the released code averages the soft maps over each cell first.
    """
    first, second = config.confidence_pair
    if config.network == "affinitynet":
        unaries = [softmax_energies(power_background(maps, alpha)) for alpha in (first, second)]
        low, high = (torch.from_numpy(q) for q in dense_crf(image, unaries, KERNELS[config.crf]))
        return np.asarray(affinity_label(low, high, pool=1).numpy())
    scores = [with_background(maps, threshold) for threshold in (first, second)]
    strict, loose = crf_channels(image, scores, config.crf, "labels")
    return confident_channels(strict, loose)


if __name__ == "__main__":
    run_distributed_stage(main)
