"""Boundary IoU: whether masks follow the outlines of things, which a sum over all their pixels hardly shows.

Source: Cheng et al., Boundary IoU: Improving Object-Centric Image Segmentation Evaluation, CVPR 2021, and its released
code (`boundary_iou/utils/boundary_utils.py`).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from models.labels import IGNORE
from pipeline.scoring.scores import mean, ratio

Labels = NDArray[np.uint8]
DILATION = 0.02  # width of the region, as share of the photograph's diagonal


def boundary_region(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of a region (H, W) near its outline; the edge of the photograph is an outline too."""
    width = max(1, round(DILATION * float(np.hypot(*mask.shape))))
    padded = np.pad(mask.astype(np.uint8), 1)
    inner = cv2.erode(padded, np.ones((3, 3), dtype=np.uint8), iterations=width)[1:-1, 1:-1]
    return mask & (inner == 0)


class BoundaryCounts:
    """Pixels of boundary regions by label, summed over photographs: in both, and in either."""

    def __init__(self, labels: int) -> None:
        self.intersection = np.zeros(labels, dtype=np.int64)
        self.union = np.zeros(labels, dtype=np.int64)

    def add(self, truth: Labels, predicted: Labels) -> None:
        """Count one photograph; 255 is left out in the truth, and is background in the prediction.

        Void has an outline of its own, which the prediction takes over: a perfect one scores 1.
        """
        known = truth != IGNORE
        shown = np.where(known, np.where(predicted == IGNORE, 0, predicted), IGNORE)
        for label in np.union1d(truth[known], shown[known]).tolist():
            both = boundary_region(truth == label) & known, boundary_region(shown == label) & known
            self.intersection[label] += np.count_nonzero(both[0] & both[1])
            self.union[label] += np.count_nonzero(both[0] | both[1])

    def miou(self, background: bool = True) -> float:
        """Mean of the boundary IoU over labels that occur, with or without label 0; NaN where none does."""
        return mean(ratio(self.intersection, self.union)[0 if background else 1 :])
