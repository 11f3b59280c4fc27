"""Charts of odd names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.scoring.charts import drawable, save_over_activation, save_per_class, save_sampling


@pytest.mark.filterwarnings("error")
def test_names_that_the_letters_lack_stand_as_rows(tmp_path: Path) -> None:
    assert drawable(["cat", "猫", "кошка", "犬 dog"]) == ["cat", "row 2", "кошка", "row 4"]
    save_per_class(tmp_path, {"猫": 0.5, "$_$": 0.1}, "IoU per class")
    picture, places = np.zeros((20, 30, 3), np.uint8), np.zeros((4, 9, 2), np.float32)
    save_sampling(tmp_path, picture, places, places, "expansion on 猫")
    save_over_activation(tmp_path, {"猫": (0.5, 0.1)}, "over-activation")
    assert (tmp_path / "per_class.csv").read_text() == "class,iou\n猫,0.5\n$_$,0.1\n"


def test_names_with_dollars_are_no_formulas(tmp_path: Path) -> None:
    picture, places = np.zeros((20, 30, 3), np.uint8), np.zeros((4, 9, 2), np.float32)
    save_sampling(tmp_path, picture, places, places, "expansion on $_$")
    assert (tmp_path / "sampling.png").stat().st_size > 1000
