"""Background thresholds and what competes without one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.maps.background import hard_labels, with_background
from pipeline.maps.background_rules import image_threshold


@given(st.integers(0, 1000))
def test_none_is_the_threshold_one_half(seed: int) -> None:
    maps = np.random.default_rng(seed).random((3, 5, 6), dtype=np.float32)
    by_rule, by_number = (hard_labels(with_background(maps, rule), (2, 4, 6)) for rule in (None, 0.5))
    np.testing.assert_array_equal(by_rule, by_number)


def test_background_map_of_the_method_competes_where_there_is_no_threshold() -> None:
    maps, background = np.full((1, 1, 2), 0.6, np.float32), np.array([[0.7, 0.5]], np.float32)
    np.testing.assert_array_equal(hard_labels(with_background(maps, None, background), (3,)), [[0, 3]])
    np.testing.assert_array_equal(hard_labels(with_background(maps, 0.2, background), (3,)), [[3, 3]])


def test_otsu_parts_two_groups() -> None:
    values = np.concatenate([np.full(60, 0.15), np.full(40, 0.8)]).astype(np.float32).reshape(10, 10)
    assert 0.15 < image_threshold("otsu", values) < 0.8
    assert np.count_nonzero(hard_labels(with_background(values[None], "otsu"), (1,))) == 40
    assert not hard_labels(with_background(np.zeros((1, 4, 4), np.float32), "otsu"), (1,)).any()
