"""Learning rates and other quantities over a training."""

from __future__ import annotations

import pytest

from models.schedules import warm_poly_rate


def test_poly_at_half_is_the_published_value() -> None:
    assert warm_poly_rate(500, 1, 1000, warmup=0) == pytest.approx(0.5359, abs=1e-4)
    assert warm_poly_rate(0, 1, 1000, warmup=0) == 1
