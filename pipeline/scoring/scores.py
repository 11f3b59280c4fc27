"""Scores of masks against ground truth, all from one int64 confusion matrix; the threshold curve in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.labels import IGNORE

Labels = NDArray[np.uint8]
Confusion = NDArray[np.int64]
THRESHOLDS = np.linspace(0, 1, 101).astype(np.float32)


def confusion_matrix(truth: Labels, predicted: Labels, labels: int) -> Confusion:
    """Count pixels by true and predicted label.

    Args:
        truth: any shape; 255 is left out.
        predicted: same shape; 255 (ignored by a pseudo mask) counts as background, as IRN scores it.
        labels: number of labels, background included.

    Returns:
        (labels, labels) int64, rows true.

    Raises:
        ValueError: shapes differ, or a label is out of range.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {predicted.shape}")
    counted = truth != IGNORE
    rows = truth[counted].astype(np.int64)
    columns = np.where(predicted == IGNORE, 0, predicted)[counted].astype(np.int64)
    if rows.max(initial=0) >= labels or columns.max(initial=0) >= labels:
        raise ValueError(f"labels reach {max(rows.max(initial=0), columns.max(initial=0))}, but there are {labels}")
    return np.bincount(rows * labels + columns, minlength=labels * labels).reshape(labels, labels)


def ratio(part: NDArray[np.integer], whole: NDArray[np.integer]) -> NDArray[np.float64]:
    """part / whole, NaN where whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def iou(confusion: Confusion) -> NDArray[np.float64]:
    """Intersection over union per label, (..., labels) from (..., labels, labels); NaN for a label in neither."""
    hit = np.diagonal(confusion, axis1=-2, axis2=-1)
    return ratio(hit, confusion.sum(-1) + confusion.sum(-2) - hit)


def mean(values: NDArray[np.float64]) -> float:
    """Mean over the entries that are not NaN; NaN where none is."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else float("nan")


def scored_iou(confusion: Confusion, background: bool = True) -> NDArray[np.float64]:
    """IoU per label as in `iou`; NaN for label 0 where there is no background."""
    values = iou(confusion)
    return values if background else np.concatenate([np.full_like(values[..., :1], np.nan), values[..., 1:]], axis=-1)


def summary(confusion: Confusion, classes: Sequence[str], background: bool = True) -> dict[str, Any]:
    """Every score of one confusion matrix.

    mIoU is the mean over labels that occur in truth or prediction (a class that is predicted but never true
    counts 0). Precision, recall and over-activation FP / (TP + FP) are means over foreground classes; fpr and fnr
    are FP and FN over the union (TransCAM), means over all labels. Scores without a value are left out.

    Args:
        confusion: (labels, labels), rows true.
        classes: names of the foreground classes, in label order.
        background: whether pixels may belong to no class; where not, label 0 only means that no class was predicted.
    """
    hit = np.diagonal(confusion)
    predicted, true = confusion.sum(0), confusion.sum(1)
    per_label, first = scored_iou(confusion, background), 0 if background else 1
    union = predicted + true - hit
    scores = {
        "miou": mean(per_label),
        "foreground_miou": mean(per_label[1:]),
        "precision": mean(ratio(hit, predicted)[1:]),
        "recall": mean(ratio(hit, true)[1:]),
        "over_activation": mean(ratio(predicted - hit, predicted)[1:]),
        "fpr": mean(ratio(predicted - hit, union)[first:]),
        "fnr": mean(ratio(true - hit, union)[first:]),
    }
    named = dict(zip(["background", *classes], per_label.tolist(), strict=True))
    return {
        **{name: value for name, value in scores.items() if not np.isnan(value)},
        "per_class": {name: value for name, value in named.items() if not np.isnan(value)},
        "classes_scored": int((~np.isnan(per_label)).sum()),
    }


def over_activation(confusion: Confusion, classes: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Per class, the shares of its predicted pixels that are really background, and another class; their sum is OR.

    OR = FP / (TP + FP) = 1 - precision. A class that is nowhere predicted has none and is left out.

    Args:
        confusion: (labels, labels), rows true.
        classes: names of the foreground classes, in label order.

    Source: the dual-branch paper (doi:10.19651/j.cnki.emt.2416644), figure 3.
    """
    predicted, hit = confusion.sum(0), np.diagonal(confusion)
    background, other = ratio(confusion[0], predicted), ratio(predicted - hit - confusion[0], predicted)
    rates = zip(classes, background[1:].tolist(), other[1:].tolist(), predicted[1:].tolist(), strict=True)
    return {name: (behind, beside) for name, behind, beside, pixels in rates if pixels}


class ThresholdCurve:
    """Confusion matrices at every threshold from one histogram (true label, strongest class, threshold bin).

    A pixel is foreground at threshold t where its strongest class is larger than t. Its bin is the number of
    thresholds that it exceeds, so cumulative sums over bins give every matrix exactly.
    """

    def __init__(self, labels: int, thresholds: NDArray[np.float32] = THRESHOLDS) -> None:
        self.labels, self.thresholds = labels, thresholds
        self.histogram = np.zeros((labels, labels, len(thresholds) + 1), dtype=np.int64)

    def add(self, truth: Labels, maps: NDArray[np.float32], class_ids: Sequence[int]) -> None:
        """Count one image.

        Args:
            truth: (H, W); 255 is left out.
            maps: (K, H, W) in [0, 1].
            class_ids: labels of the K maps; K = 0 counts as background everywhere.
        """
        counted = truth != IGNORE
        rows = truth[counted].astype(np.int64)
        if len(class_ids) == 0:
            strongest, value = np.zeros_like(rows), np.zeros(rows.shape, dtype=np.float32)
        else:
            strongest = np.array(class_ids, dtype=np.int64)[maps.argmax(axis=0)[counted]]
            value = maps.max(axis=0)[counted]
        bins = np.searchsorted(self.thresholds, value, side="left")
        width = len(self.thresholds) + 1
        flat = (rows * self.labels + strongest) * width + bins
        self.histogram += np.bincount(flat, minlength=self.histogram.size).reshape(self.histogram.shape)

    def confusions(self) -> Confusion:
        """(thresholds, labels, labels), rows true."""
        at_most = np.cumsum(self.histogram, axis=2)[:, :, :-1]  # background at threshold k: bin <= k
        foreground = self.histogram.sum(axis=2)[:, :, None] - at_most
        confusions = np.moveaxis(foreground, 2, 0).copy()
        confusions[:, :, 0] += at_most.sum(axis=1).T
        return confusions

    def miou(self) -> NDArray[np.float64]:
        """mIoU at each threshold."""
        return np.array([mean(values) for values in iou(self.confusions())])
