"""Labels of a photograph at one or several background thresholds, through the dense CRF: what masks are made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.kernels import kernels_for
from models.labels import IGNORE
from pipeline.config.masks import MaskRules
from pipeline.data.images import resize_grey, resize_image, resize_labels, scaled_size
from pipeline.data.manifest import Record
from pipeline.data.photographs import read_photograph
from pipeline.data.saliency import read_saliency
from pipeline.maps.background import Labels, Maps, Threshold, labels_of_channels, with_background
from pipeline.maps.background_rules import NOWHERE
from pipeline.maps.crf import crf_channels
from pipeline.maps.segments import voted
from pipeline.maps.store import fused_maps, read_entry


def labels_at(
    shard: Path, record: Record, thresholds: Sequence[Threshold], rules: MaskRules, root: Path
) -> list[Labels]:
    """The labels (H, W) of a photograph at each threshold; the CRF works at most at `rules.max_side`.

    A photograph without a tag is background, or ignored where there is none. Segments of another tool have the last
    word, where there are some.
    """
    entry = read_entry(shard, record.id)
    if not entry.class_ids:
        return [np.full(record.size, IGNORE if t == NOWHERE else 0, dtype=np.uint8) for t in thresholds]
    size = scaled_size(record.size, min(rules.max_side, max(record.size)))
    maps, background = fused_maps(entry, size)
    image = resize_image(read_photograph(root, record), size)
    saliency = resize_grey(read_saliency(rules.saliency.path, record), size) if rules.saliency is not None else None
    found = channels_at(image, maps, background, thresholds, rules, saliency)
    labels = [resize_labels(labels_of_channels(channels, entry.class_ids), record.size) for channels in found]
    return [voted(one, record, rules) for one in labels]


def channels_at(
    image: Labels,
    maps: Maps,
    background: Maps | None,
    thresholds: Sequence[Threshold],
    rules: MaskRules,
    saliency: Maps | None = None,
) -> list[Labels]:
    """The winning channel at each pixel for each threshold: 0 background, k the k-th map. All share one lattice.

    Args:
        image: (H, W, 3) uint8.
        maps: (K, H, W) in [0, 1], K >= 1.
        background: (H, W), for methods that have a background map.
        thresholds: of the background; where it is nowhere, there is one, and the CRF knows no background either.
        rules: of the CRF.
        saliency: (H, W) in [0, 1], where there are saliency maps.

    Returns:
        For each threshold (H, W) uint8.
    """
    kernels = kernels_for(rules.crf, maps.shape[1:], rules.crf_reference, rules.crf_iterations)
    if [*thresholds] == [NOWHERE]:
        return [found + 1 for found in crf_channels(image, [maps], kernels, rules.crf_unary, rules.unary_labels)]
    scores = [with_background(maps, threshold, background, saliency) for threshold in thresholds]
    return crf_channels(image, scores, kernels, rules.crf_unary, rules.unary_labels)
