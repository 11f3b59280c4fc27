"""Scores and the threshold curve against plain definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from pipeline.maps.background import hard_labels, with_background
from pipeline.scoring.charts import save_over_activation
from pipeline.scoring.scores import ThresholdCurve, confusion_matrix, iou, mean, over_activation, summary


@given(seed=st.integers(0, 10_000), classes=st.integers(0, 4))
@settings(max_examples=40, deadline=None)
def test_curve_equals_scoring_at_every_threshold(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    thresholds = np.linspace(0, 1, 11).astype(np.float32)
    curve, size, labels = ThresholdCurve(6, thresholds), (9, 7), 6
    images = []
    for _ in range(3):
        ids = tuple(sorted(rng.choice(np.arange(1, labels), size=classes, replace=False).tolist()))
        # Values on the thresholds themselves are planted: ties go to the background.
        maps = np.where(
            rng.random((classes, *size)) < 0.3, rng.choice(thresholds, (classes, *size)), rng.random((classes, *size))
        )
        truth = rng.choice([0, 1, 2, 5, 255], size=size).astype(np.uint8)
        images.append((truth, maps.astype(np.float32), ids))
        curve.add(truth, maps.astype(np.float32), ids)
    for threshold, confusion in zip(thresholds, curve.confusions(), strict=True):
        expected = sum(
            (
                confusion_matrix(t, hard_labels(with_background(m, float(threshold)), ids), labels)
                for t, m, ids in images
            ),
            np.zeros((labels, labels), dtype=np.int64),
        )
        np.testing.assert_array_equal(confusion, expected)


def test_iou_agrees_with_another_library() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 5, (2, 40, 40)).astype(np.uint8)
    expected = jaccard_score(truth.ravel(), predicted.ravel(), average=None)
    np.testing.assert_allclose(iou(confusion_matrix(truth, predicted, 5)), expected)


def test_ignored_pixels() -> None:
    truth = np.array([[0, 1, 255]], dtype=np.uint8)
    predicted = np.array([[255, 1, 1]], dtype=np.uint8)
    np.testing.assert_array_equal(confusion_matrix(truth, predicted, 2), [[1, 0], [0, 1]])


def test_summary_by_hand() -> None:
    # background, a, b, c: 6 true a (4 found), 2 background pixels taken for a, b is never true but predicted once.
    confusion = np.array([[10, 2, 1, 0], [2, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    scores = summary(confusion, ["a", "b", "c"])
    assert scores["per_class"] == pytest.approx({"background": 10 / 15, "a": 0.5, "b": 0.0})
    assert scores["classes_scored"] == 3
    assert scores["miou"] == pytest.approx((10 / 15 + 0.5) / 3)
    assert scores["foreground_miou"] == pytest.approx(0.25)
    assert scores["precision"] == pytest.approx((4 / 6 + 0) / 2)
    assert scores["recall"] == pytest.approx(4 / 6)
    assert scores["over_activation"] == pytest.approx((2 / 6 + 1) / 2)


def test_over_activation_is_one_minus_precision(tmp_path: Path) -> None:
    # Of 8 pixels predicted a, 5 are a, 2 background, 1 b; b is predicted rightly; c never.
    confusion = np.array([[10, 2, 0, 0], [3, 5, 0, 0], [0, 1, 4, 0], [1, 0, 0, 0]])
    rates = over_activation(confusion, ["a", "b", "c"])
    assert rates == {"a": (pytest.approx(2 / 8), pytest.approx(1 / 8)), "b": (0, 0)}
    scores = summary(confusion, ["a", "b", "c"])
    assert scores["over_activation"] == pytest.approx(np.mean([sum(rate) for rate in rates.values()]))
    assert scores["over_activation"] == pytest.approx(1 - scores["precision"])
    save_over_activation(tmp_path, rates, "toy")
    assert (tmp_path / "over_activation.csv").read_text().splitlines()[1] == "a,0.375,0.25,0.125"
    assert (tmp_path / "over_activation.png").exists()
    save_over_activation(tmp_path / "nothing", over_activation(np.zeros((2, 2), dtype=np.int64), ["a"]), "nothing")
    assert not (tmp_path / "nothing/over_activation.png").exists()


def test_nothing_scored_gives_no_nan() -> None:
    scores = summary(np.zeros((3, 3), dtype=np.int64), ["a", "b"])
    assert scores == {"per_class": {}, "classes_scored": 0}
    assert np.isnan(mean(np.array([np.nan])))


@pytest.mark.parametrize("bad", [np.array([[7]], dtype=np.uint8), np.array([[0, 0]], dtype=np.uint8)])
def test_bad_labels_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"labels|shape"):
        confusion_matrix(np.zeros((1, 1), dtype=np.uint8), bad, 3)


def test_counts_are_64_bit() -> None:
    confusion = confusion_matrix(np.zeros((4, 4), dtype=np.uint8), np.zeros((4, 4), dtype=np.uint8), 2)
    curve = ThresholdCurve(2)
    assert confusion.dtype == curve.histogram.dtype == np.int64
