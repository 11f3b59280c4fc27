"""Reliability of map values against a direct count, and the chart of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.scoring.calibration import calibration
from pipeline.scoring.charts import save_calibration
from pipeline.scoring.scores import ThresholdCurve


def test_table_agrees_with_a_direct_count() -> None:
    rng, curve = np.random.default_rng(0), ThresholdCurve(4)
    truth = rng.choice([0, 1, 3, 255], (60, 70)).astype(np.uint8)
    maps = rng.random((2, 60, 70)).astype(np.float32)
    curve.add(truth, maps, (1, 3))
    curve.add(truth, np.zeros((0, 60, 70), dtype=np.float32), ())
    found = calibration(curve)
    value, right = maps.max(axis=0)[truth != 255], (np.array([1, 3])[maps.argmax(axis=0)] == truth)[truth != 255]
    place = np.minimum((value * 10).astype(int), 9)
    error = 0.0
    for number, row in zip(np.unique(place), found["bins"], strict=True):
        inside = place == number
        assert row["pixels"] == inside.sum() and row["right"] == pytest.approx(right[inside].mean())
        assert row["value"] == pytest.approx(value[inside].mean(), abs=0.005)
        error += inside.sum() * abs(value[inside].mean() - right[inside].mean())
    assert found["ece"] == pytest.approx(error / len(value), abs=0.005)


def test_no_class_anywhere_has_no_table() -> None:
    curve = ThresholdCurve(2)
    curve.add(np.zeros((3, 3), dtype=np.uint8), np.zeros((0, 3, 3), dtype=np.float32), ())
    assert calibration(curve) == {}


def test_chart_has_its_numbers_beside_it(tmp_path: Path) -> None:
    save_calibration(tmp_path, [{"value": 0.25, "right": 0.5, "pixels": 7}], 0.25)
    assert (tmp_path / "calibration.csv").read_text() == "value,right,pixels\n0.25,0.5,7\n"
    assert (tmp_path / "calibration.png").exists()
