"""Learning rates and thresholds against published numbers."""

import pytest

from models.schedules import cosine_threshold, warm_poly_rate


@pytest.mark.parametrize(
    ("step", "total", "rate"),
    [
        (199, 20000, 7.960e-6),
        (1399, 20000, 5.596e-5),
        (1599, 20000, 5.566e-5),
        (1999, 20000, 5.457e-5),
        (9999, 20000, 3.216e-5),
        (19799, 20000, 9.552e-7),
        (19999, 20000, 8.077e-9),
        (8199, 80000, 5.444e-5),
        (72199, 80000, 7.384e-6),
    ],
)
def test_learning_rates_of_the_published_logs(step: int, total: int, rate: float) -> None:
    assert warm_poly_rate(step, 6e-5, total) == pytest.approx(rate, rel=1e-3)


def test_poly_at_half_is_the_published_value() -> None:
    assert warm_poly_rate(500, 1, 1000, warmup=0) == pytest.approx(0.5359, abs=1e-4)
    assert warm_poly_rate(0, 1, 1000, warmup=0) == 1


def test_learning_rate_without_warm_up_and_past_the_end() -> None:
    assert warm_poly_rate(0, 0.1, 100, warmup=0) == 0.1
    assert warm_poly_rate(120, 0.1, 100, warmup=0) == 0


@pytest.mark.parametrize(
    ("step", "threshold"),
    [(0, 0.7), (2000, 0.6963), (5000, 0.6780), (10000, 0.6250), (15000, 0.5720), (18000, 0.5537), (30000, 0.55)],
)
def test_threshold_falls_along_a_cosine(step: int, threshold: float) -> None:
    assert cosine_threshold(step, 0.7, 0.55, 20000) == pytest.approx(threshold, abs=5e-5)
