"""Stage make_masks: from maps to pseudo masks: background threshold, dense CRF, ignored region, palette PNG.

For full supervision (`masks.source = truth`) the ground-truth masks take their place.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.kernels import kernels_for
from models.labels import IGNORE
from pipeline.config.masks import BackgroundThreshold, MasksKnobs
from pipeline.data.dataset import read_photograph
from pipeline.data.images import resize_image, resize_labels, scaled_size
from pipeline.data.manifest import Manifest, Record, load_manifest
from pipeline.data.masks import write_mask
from pipeline.maps.background import Maps, Threshold, confident_channels, labels_of_channels, with_background
from pipeline.maps.background_found import threshold_of
from pipeline.maps.crf import crf_channels
from pipeline.maps.store import fused_maps, read_entry
from pipeline.run.files import new_folder
from pipeline.run.pool import map_photographs
from pipeline.run.stage import run_light_stage
from pipeline.run.told import CrfTold, Runtime, told

INPUT, OUTPUT = Path("data/refined"), Path("data/masks")
TRUE_MASKS = "pipeline.maps.true_masks"  # reads ground truth, so it is loaded for full supervision alone

Labels = NDArray[np.uint8]


class MakeMasksConfig(MasksKnobs, CrfTold):
    """What make_masks is told."""

    bg_thresh: BackgroundThreshold


def main(runtime: Runtime) -> None:
    """Make the mask of every training photograph."""
    config, manifest = told("make_masks", MakeMasksConfig), load_manifest().split("train")
    with new_folder(OUTPUT) as output:
        if config.source == "truth":
            import_module(TRUE_MASKS).write_true_masks(manifest, runtime.folder, output)
        else:
            write_pseudo_masks(manifest, config, runtime, output)


def write_pseudo_masks(manifest: Manifest, config: MakeMasksConfig, runtime: Runtime, output: Path) -> None:
    """Write the pseudo mask of every photograph, in a pool of processes."""
    config = config.model_copy(update={"bg_thresh": threshold_of(config.bg_thresh, INPUT)})
    job = partial(make_mask, config=config, root=runtime.folder, output=output)
    used = set().union(*map_photographs(job, INPUT, manifest.records, "masks", runtime.workers))
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
    labels = labels_of_channels(channels, entry.class_ids)
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
    thresholds: list[Threshold] = [*config.confidence_pair] if config.confidence_pair else [config.bg_thresh]
    scores = [with_background(maps, threshold, background) for threshold in thresholds]
    kernels = kernels_for(config.crf, maps.shape[1:], config.crf_reference)
    channels = crf_channels(image, scores, kernels, config.crf_unary, config.unary_labels)
    return channels[0] if len(channels) == 1 else confident_channels(*channels)


if __name__ == "__main__":
    run_light_stage(main)
