"""Confident pixel labels from maps: two labellings of each photograph, 255 where they disagree."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.affinity.knobs import ConfidentLabels
from models.affinity.pairs import affinity_label
from models.kernels import kernels_for
from pipeline.data.images import resize_image, resize_labels, scaled_size
from pipeline.data.manifest import Manifest, Record
from pipeline.data.masks import whole, write_mask
from pipeline.data.photographs import read_photograph
from pipeline.maps.background import confident_channels, labels_of_channels, power_background, with_background
from pipeline.maps.crf import crf_channels, dense_crf, softmax_energies
from pipeline.maps.per_photograph import map_photographs
from pipeline.maps.store import fused_maps, read_entry

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class ConfidencePair:
    """How two labellings are made.

    Attributes:
        kind: `alphas`: backgrounds (1 - strongest class) ** alpha, probabilities as energies of the CRF (AffinityNet);
            `thresholds`: constant backgrounds, hard labels as energies (IRN, AMN, TransCAM).
        pair: the alphas, or the foreground and the background threshold.
        crf: name of the kernels; None: labels are those of the maps alone.
        max_side: the CRF works at most at this longer side.
        crf_reference: the longer side that the kernels' deviations are made for; None: they stay as published.
    """

    kind: ConfidentLabels
    pair: tuple[float, float]
    crf: str | None
    max_side: int
    crf_reference: int | None = None


def write_labels(manifest: Manifest, store: Path, pair: ConfidencePair, folder: Path, root: Path, workers: int) -> None:
    """Write the confident labels of every photograph that has none yet, in a pool of processes."""
    missing = [record for record in manifest.records if not whole(folder / f"{record.id}.png")]
    if missing:
        job = partial(write_label, pair=pair, root=root, folder=folder)
        map_photographs(job, store, missing, "confident labels", workers)


def write_label(shard: Path, record: Record, pair: ConfidencePair, root: Path, folder: Path) -> None:
    """Write the confident labels of one photograph as a palette PNG."""
    entry = read_entry(shard, record.id)
    size = scaled_size(record.size, min(pair.max_side, max(record.size)))
    channels = np.zeros(size, dtype=np.uint8)
    if entry.class_ids:
        image = resize_image(read_photograph(root, record), size)
        channels = confident_labels(image, fused_maps(entry, size)[0], pair)
    labels = labels_of_channels(channels, entry.class_ids)
    write_mask(folder / f"{record.id}.png", resize_labels(labels, record.size))


def confident_labels(image: Labels, maps: NDArray[np.float32], pair: ConfidencePair) -> Labels:
    """The channel that two labellings agree on, 255 where they do not; one lattice serves the CRF of both.

    Args:
        image: (H, W, 3) uint8.
        maps: (K, H, W) in [0, 1], K >= 1.
        pair: the two labellings.

    Returns:
        (H, W) uint8: 0 background, k the k-th map, 255 not sure.

    Source: Ahn & Kwak, CVPR 2018, section 3.2 (released: alphas 4 and 32); Ahn, Cho & Kwak, CVPR 2019, section 4.2
    (released: thresholds 0.30 and 0.05). AffinityNet's labels are taken pixel by pixel and reduced to the grid
    later; the released code averages the soft maps over each cell first.
    """
    kernels = kernels_for(pair.crf, image.shape[:2], pair.crf_reference)
    if pair.kind == "alphas":
        stacks = [power_background(maps, alpha) for alpha in pair.pair]
        if kernels is not None:
            stacks = dense_crf(image, [softmax_energies(stack) for stack in stacks], kernels)
        low, high = (torch.from_numpy(stack) for stack in stacks)
        return np.asarray(affinity_label(low, high, pool=1).numpy())
    scores = [with_background(maps, threshold) for threshold in pair.pair]
    strict, loose = crf_channels(image, scores, kernels, "labels")
    return confident_channels(strict, loose)
