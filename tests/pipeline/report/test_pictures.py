"""Pictures and charts of the report."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.labels import IGNORE
from pipeline.data.masks import voc_palette
from pipeline.report import pictures


def test_overlay_fades_background_colours_classes_and_hatches_ignored() -> None:
    grey = np.full((20, 30, 3), 100, dtype=np.uint8)
    labels = np.zeros((20, 30), dtype=np.uint8)
    labels[:, 10:20], labels[:, 20:] = 1, IGNORE
    picture = pictures.label_overlay(grey, labels)
    assert (picture[:, :9] == 154).all()
    assert (picture[:, 11:19] == np.round(0.35 * 100 + 0.65 * voc_palette()[1].astype(float))).all()
    assert len(np.unique(picture[:, 21:].reshape(-1, 3), axis=0)) == 2
    assert (picture[:, [9, 19]] == 255).all()


def test_thumbnails_are_never_enlarged() -> None:
    assert pictures.thumbnail_size((1000, 2000)) == (120, 240)
    assert pictures.thumbnail_size((30, 40)) == (30, 40)
    assert pictures.thumbnail_size((1, 5000)) == (1, 240)


@given(st.lists(st.floats(-1e6, 1e6) | st.just(float("nan"))))
def test_limits_hold_all_values_and_zero(values: list[float]) -> None:
    low, high = pictures._with_zero(values)
    assert low <= 0 <= high and low < high
    assert all(low <= value <= high for value in values if value == value)
