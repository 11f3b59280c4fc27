"""mIoU of pseudo masks at several background thresholds, each through the CRF, on a fixed sample of photographs.

The curve of the maps leaves the CRF out, and the best threshold before it need not be the best one after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.masks import MaskRules
from pipeline.data.ground_truth import GroundTruth
from pipeline.data.manifest import Record
from pipeline.maps.labellings import labels_at
from pipeline.maps.per_photograph import map_photographs
from pipeline.scoring.scores import Confusion, confusion_matrix, iou, mean

PHOTOGRAPHS = 24
"""At most; the CRF at every threshold takes its time."""
THRESHOLDS = tuple(number / 10 for number in range(1, 10))


def sample(records: Sequence[Record]) -> list[Record]:
    """The same photographs every time, by a hash of their ids; others that come or go hardly change them."""
    return sorted(records, key=lambda record: hashlib.sha256(f"mask curve {record.id}".encode()).digest())[:PHOTOGRAPHS]


def confusions(shard: Path, record: Record, rules: MaskRules, truth: GroundTruth, root: Path) -> Confusion:
    """The confusion matrices (thresholds, labels, labels) of one photograph's masks."""
    mask = truth.read(record)
    found = labels_at(shard, record, THRESHOLDS, rules, root)
    return np.stack([confusion_matrix(mask, labels, truth.labels) for labels in found])


def mask_curve(
    store: Path, truth: GroundTruth, records: Sequence[Record], rules: MaskRules, workers: int
) -> dict[str, Any]:
    """The curve, and its best threshold, which only masks can tell; nothing where no pixel of the sample is known.

    Args:
        store: of the maps that masks are made of.
        truth: the ground truth.
        records: photographs with a mask, of which a sample is taken.
        rules: how masks are made.
        workers: processes.

    Returns:
        `images`, `thresholds`, `miou`, and `best` with `threshold`, `miou`, and what it was chosen with.
    """
    chosen = sample(records)
    job = partial(confusions, rules=rules, truth=truth, root=truth.root)
    total = sum(map_photographs(job, store, chosen, "masks by threshold", workers))
    if not np.any(total):
        return {}
    miou = [mean(values) for values in iou(np.asarray(total))]
    best = int(np.argmax(miou))
    return {
        "images": len(chosen),
        "thresholds": list(THRESHOLDS),
        "miou": miou,
        "best": {
            "threshold": THRESHOLDS[best],
            "miou": miou[best],
            "chosen_with": "the masks that it is scored on",
        },
    }
