"""IoU by object size: small things are where methods differ, and where a sum over pixels does not look."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.scoring.counts import Counts
from pipeline.scoring.scores import mean, ratio

GROUPS = ("small", "medium", "large")
MEDIUM, LARGE = 0.05, 0.2
"""A class is medium from the first share of the photograph on, and large above the second."""


def by_size(counts: Counts, labels: int) -> dict[str, dict[str, Any]]:
    """Foreground mIoU of each group of sizes, and its number of (photograph, class) pairs; groups without are left out.

    A pair is a class that the truth of a photograph shows. Its intersection and union are those in that photograph, and
    are summed by class and group. The photograph's void pixels count neither as area nor as photograph.

    Args:
        counts: of the photographs.
        labels: number of labels, background included.
    """
    photograph, true, predicted, pixels = counts.table().T
    shape = (len(counts.ids), labels)
    area, claimed, hit = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    np.add.at(area, (photograph, true), pixels)
    np.add.at(claimed, (photograph, predicted), pixels)
    right = true == predicted
    hit[photograph[right], true[right]] = pixels[right]
    share = ratio(area, np.broadcast_to(area.sum(axis=1, keepdims=True), shape))
    group = (share >= MEDIUM).astype(np.int64) + (share > LARGE)
    found: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(GROUPS):
        pairs = (area > 0) & (group == number)
        pairs[:, 0] = False
        if pairs.any():
            inside, union = (np.where(pairs, part, 0).sum(axis=0) for part in (hit, area + claimed - hit))
            found[name] = {"foreground_miou": mean(ratio(inside, union)), "pairs": int(pairs.sum())}
    return found
