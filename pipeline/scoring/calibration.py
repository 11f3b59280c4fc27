"""Whether the value of a map tells how often its class is right: reliability by bins, expected calibration error.

Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.scoring.scores import ThresholdCurve

BINS = 10


def calibration(curve: ThresholdCurve) -> dict[str, Any]:
    """The expected calibration error of the strongest class, and the table that it is the mean of.

    The histogram knows a value within a hundredth, so each counts as the middle between two thresholds. Photographs
    without a tag have no strongest class and are left out, as are bins without a pixel.

    Returns:
        `ece`, and `bins`: mean value, share of pixels whose strongest class is the true one, pixels. Nothing where no
        pixel has a strongest class.
    """
    edges = curve.thresholds.astype(np.float64)
    values = np.concatenate([[0.0], (edges[:-1] + edges[1:]) / 2, [1.0]])
    pixels = curve.histogram[:, 1:].sum(axis=(0, 1))
    right = np.diagonal(curve.histogram)[:, 1:].sum(axis=1)
    place = np.minimum((values * BINS).astype(np.int64), BINS - 1)
    total, hits, weighted = (
        np.bincount(place, weights=weights, minlength=BINS) for weights in (pixels, right, pixels * values)
    )
    if not total.any():
        return {}
    bins = [
        {"value": mass / count, "right": hit / count, "pixels": int(count)}
        for count, hit, mass in zip(total.tolist(), hits.tolist(), weighted.tolist(), strict=True)
        if count
    ]
    return {"ece": sum(row["pixels"] * abs(row["value"] - row["right"]) for row in bins) / total.sum(), "bins": bins}
