"""IoU by object size, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.scoring.counts import Counts
from pipeline.scoring.sizes import by_size


def counts(*matrices: list[list[int]]) -> Counts:
    found = Counts()
    for number, matrix in enumerate(matrices):
        found.add(str(number), np.array(matrix))
    return found


def test_pairs_go_to_their_group() -> None:
    # Class 1 covers 4 %, 5 %, 20 % and 21 % of 100 pixels; half of it is found, and nothing else is taken for it.
    matrices = [[[100 - area, 0], [area - area // 2, area // 2]] for area in (4, 5, 20, 21)]
    found = by_size(counts(*matrices), 2)
    assert {name: group["pairs"] for name, group in found.items()} == {"small": 1, "medium": 2, "large": 1}
    assert found["small"]["foreground_miou"] == pytest.approx(2 / 4)
    assert found["medium"]["foreground_miou"] == pytest.approx((2 + 10) / (5 + 20))
    assert found["large"]["foreground_miou"] == pytest.approx(10 / 21)


def test_sums_are_by_class_and_false_pixels_count() -> None:
    first = [[60, 10, 0], [0, 30, 0], [0, 0, 0]]  # class 1: 30 of 100, 10 background pixels taken for it
    second = [[0, 0, 0], [0, 20, 20], [0, 0, 60]]  # class 1: 40, half taken for class 2, which covers 60
    found = by_size(counts(first, second), 3)
    assert found == {"large": {"foreground_miou": pytest.approx((50 / 80 + 60 / 80) / 2), "pairs": 3}}


def test_a_class_that_is_not_there_is_no_pair() -> None:
    assert by_size(counts([[90, 10], [0, 0]]), 2) == {}
    assert by_size(counts(), 2) == {} and by_size(counts([[0, 0], [0, 0]]), 2) == {}
