"""Boundary IoU, by hand and against a definition by distances."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.ndimage import distance_transform_cdt

from pipeline.scoring.boundary import BoundaryCounts, boundary_region


def test_region_is_what_lies_within_two_percent_of_the_diagonal_from_the_outline() -> None:
    rng = np.random.default_rng(0)
    mask = np.kron(rng.random((6, 8)) < 0.5, np.ones((20, 20))) > 0  # 120 x 160: the diagonal is 200, the width 4
    padded = np.pad(mask, 1)
    expected = (mask & (distance_transform_cdt(padded, "chessboard") <= 4)[1:-1, 1:-1]).astype(bool)
    np.testing.assert_array_equal(boundary_region(mask), expected)
    assert expected.any() and (mask & ~expected).any()


def test_the_edge_of_the_photograph_is_an_outline_and_small_photographs_have_a_width_of_one() -> None:
    region = boundary_region(np.ones((5, 6), dtype=bool))
    assert region.sum() == 30 - 3 * 4 and not region[1:-1, 1:-1].any()


def counted(truth: np.ndarray, predicted: np.ndarray) -> BoundaryCounts:
    counts = BoundaryCounts(3)
    counts.add(truth.astype(np.uint8), predicted.astype(np.uint8))
    return counts


def test_shifted_squares_by_hand() -> None:
    truth, predicted = np.zeros((20, 20)), np.zeros((20, 20))
    truth[5:10, 5:10] = 1
    predicted[5:10, 6:11] = 1
    counts = counted(truth, predicted)
    # Rings of 16 pixels, one column apart: they share 4 + 4 of the rows and nothing of the columns.
    assert counts.intersection[1] == 8 and counts.union[1] == 24
    assert counts.union[2] == 0 and 0 < counts.miou() < 1
    assert counted(truth, truth).miou() == 1
    inside = truth.copy()
    inside[7, 7] = 0
    assert counted(truth, inside).miou() < 1


def test_void_counts_in_neither_and_ignored_pixels_are_background() -> None:
    truth, predicted = np.zeros((20, 20)), np.zeros((20, 20))
    truth[5:10, 5:10] = predicted[5:10, 5:10] = 1
    predicted[5:10, 5] = 255
    void = truth.copy()
    void[5:10, 5:7] = 255
    counts = counted(void, predicted)
    assert counts.union[1] <= 9 + 3 and counts.union[2] == 0
    assert counted(np.full((9, 9), 255), np.ones((9, 9))).miou() == pytest.approx(np.nan, nan_ok=True)


def test_a_perfect_prediction_scores_one_where_void_surrounds_the_object() -> None:
    y, x = np.mgrid[:120, :160]
    disc = ((y - 60) ** 2 + (x - 80) ** 2 < 40**2).astype(np.uint8)
    truth = disc.copy()
    ring = cv2.dilate(disc, np.ones((5, 5), np.uint8)) != cv2.erode(disc, np.ones((5, 5), np.uint8))
    truth[ring] = 255
    assert counted(truth, disc).miou() == 1
    assert counted(truth, cv2.erode(disc, np.ones((15, 15), np.uint8)).astype(np.uint8)).miou() < 0.9
