"""Charts of odd names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.scoring.charts import save_sampling


def test_names_with_dollars_are_no_formulas(tmp_path: Path) -> None:
    picture, places = np.zeros((20, 30, 3), np.uint8), np.zeros((4, 9, 2), np.float32)
    save_sampling(tmp_path, picture, places, places, "expansion on $_$")
    assert (tmp_path / "sampling.png").stat().st_size > 1000
