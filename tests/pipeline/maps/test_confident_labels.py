"""Confident labels with and without the CRF."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from pipeline.maps.confident_labels import ConfidencePair, confident_labels

PAIRS: dict[Literal["alphas", "thresholds"], tuple[float, float]] = {"alphas": (1.0, 8.0), "thresholds": (0.6, 0.2)}


@pytest.mark.parametrize("kind", PAIRS)
def test_without_a_crf_labels_follow_the_maps_alone(kind: Literal["alphas", "thresholds"]) -> None:
    image = np.zeros((30, 60, 3), np.uint8)
    image[:, 20:40], image[:, 40:] = 110, 230
    maps = np.zeros((1, 30, 60), np.float32)
    maps[0, :, :20], maps[0, :, 20:40], maps[0, :, 40:] = 0.95, 0.4, 0.01
    maps[0, 15, 10] = 0.01  # a hole of one pixel, which the CRF closes
    plain, smooth = (confident_labels(image, maps, ConfidencePair(kind, PAIRS[kind], crf, 64)) for crf in (None, "psa"))
    assert [plain[0, column] for column in (10, 30, 50)] == [1, 255, 0]
    assert plain[15, 10] == 0 and smooth[15, 10] == 1
    assert (plain != smooth).sum() == 1


@pytest.mark.parametrize(
    "pair",
    [ConfidencePair("alphas", (1.0, 8.0), "psa", 1024), ConfidencePair("thresholds", (0.6, 0.2), "irn", 1024)],
)
def test_labels_are_sure_where_both_labellings_agree(pair: ConfidencePair) -> None:
    image = np.zeros((30, 60, 3), np.uint8)
    image[:, 20:40], image[:, 40:] = 110, 230  # three areas, so that the CRF has nothing to move
    maps = np.zeros((1, 30, 60), np.float32)
    maps[0, :, :20], maps[0, :, 20:40], maps[0, :, 40:] = 0.95, 0.4, 0.01
    labels = confident_labels(image, maps, pair)
    areas = [np.unique(labels[:, start : start + 10]).tolist() for start in (5, 25, 45)]
    assert areas == [[1], [255], [0]]
