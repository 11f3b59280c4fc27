"""Stage make_masks: from maps to pseudo masks: background rule, dense CRF, ignored region, palette PNG."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.background import Maps, Rule, hard_channels, with_background
from pipeline.cam_store import fused_maps, read_entry, store_index
from pipeline.config import MakeMasksConfig, Runtime, stage_config
from pipeline.crf import KERNELS, dense_crf, label_energies, softmax_energies
from pipeline.examples import read_photograph
from pipeline.files import new_folder
from pipeline.images import resize_image, resize_labels, scaled_size
from pipeline.manifest import Record, load_manifest
from pipeline.palette import IGNORE, write_mask
from pipeline.stage import die_with_parent, run_stage

INPUT, OUTPUT = Path("data/refined"), Path("data/masks")

Labels = NDArray[np.uint8]


def main() -> None:
    """Make the mask of every training photograph, in a pool of processes."""
    config = stage_config("make_masks", MakeMasksConfig)
    runtime = stage_config("runtime", Runtime)
    records, index = load_manifest().split("train").records, store_index(INPUT)
    os.environ["OMP_NUM_THREADS"] = "1"  # in each process of the pool
    pool = ProcessPoolExecutor(max(1, runtime.workers), get_context("spawn"), initializer=die_with_parent)
    with new_folder(OUTPUT) as output, pool:
        job = partial(make_mask, config=config, root=Path(str(runtime.root)), output=output)
        jobs = pool.map(job, [index[record.id] for record in records], records, chunksize=4)
        used = set().union(*tqdm(jobs, total=len(records), desc="masks", disable=None))
    if not used - {0, IGNORE}:
        print(f"WARNING: every mask is background only (bg_thresh = {config.bg_thresh}); lower it")


def make_mask(shard: Path, record: Record, config: MakeMasksConfig, root: Path, output: Path) -> set[int]:
    """Write the mask of one photograph; gives the labels that occur in it."""
    entry = read_entry(shard, record.id)
    size = scaled_size(record.size, min(config.max_side, max(record.size)))
    maps, background = fused_maps(entry, size)
    channels = np.zeros(size, dtype=np.uint8)
    if entry.class_ids:
        image = resize_image(read_photograph(root, record), size)
        channels = mask_channels(image, maps, background, config)
    labels = np.array([0, *entry.class_ids], dtype=np.uint8)[np.where(channels == IGNORE, 0, channels)]
    labels[channels == IGNORE] = IGNORE
    write_mask(output / f"{record.id}.png", resize_labels(labels, record.size))
    return set(np.unique(labels).tolist())


def mask_channels(image: Labels, maps: Maps, background: Maps | None, config: MakeMasksConfig) -> Labels:
    """The winning channel at each pixel: 0 background, k the k-th map, 255 ignored.

    With a confidence pair (foreground, background threshold) the CRF runs on both labellings, over one lattice;
    a pixel is a class where the strict one says so, background where both do, and ignored elsewhere.

    Args:
        image: (H, W, 3) uint8.
        maps: (K, H, W) in [0, 1], K >= 1.
        background: (H, W), for methods that have a background map.
        config: rules.

    Returns:
        (H, W) uint8.

    Source: released code of IRN (`step/cam_to_ir_label.py`) for the pair; AMN and TransCAM alike.
    """
    rules: list[Rule] = [*config.confidence_pair] if config.confidence_pair else [config.bg_thresh]
    scores = [with_background(maps, rule, background) for rule in rules]
    channels = [hard_channels(values) for values in scores]
    if config.crf is not None:
        if config.crf_unary == "labels":
            unaries = [label_energies(labels, len(maps) + 1, config.unary_labels) for labels in channels]
        else:
            unaries = [softmax_energies(values) for values in scores]
        channels = [hard_channels(marginals) for marginals in dense_crf(image, unaries, KERNELS[config.crf])]
    if config.confidence_pair is None:
        return channels[0]
    strict, loose = channels
    return np.where(strict > 0, strict, np.where(loose > 0, IGNORE, 0)).astype(np.uint8)


if __name__ == "__main__":
    run_stage(main)
