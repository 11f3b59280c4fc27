"""The dense CRF: energies, and several labellings in one field."""

from __future__ import annotations

import numpy as np
import pytest

from models.kernels import KERNELS
from pipeline.maps.crf import dense_crf, label_energies, softmax_energies


def test_label_energies() -> None:
    energies = label_energies(np.array([[0, 2]]), 3)
    np.testing.assert_allclose(energies, [[0.3567, 1.8971], [1.8971, 1.8971], [1.8971, 0.3567]], atol=1e-4)
    np.testing.assert_allclose(label_energies(np.array([[0]]), 3, 21)[1:], -np.log(0.3 / 20), atol=1e-6)


@pytest.mark.parametrize("count", [2, 3])
def test_several_unaries_in_one_field_get_what_each_gets_alone(count: int) -> None:
    rng = np.random.default_rng(count)
    image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    image[:, 25:] = 200
    scores = [rng.dirichlet([0.2] * 3, size=40 * 50).T.reshape(3, 40, 50).astype(np.float32) for _ in range(count)]
    unaries = [softmax_energies(stack) for stack in scores[1:]] + [label_energies(np.zeros((40, 50), int), 3, 21)]
    together = dense_crf(image, unaries, KERNELS["psa"])
    for unary, marginals in zip(unaries, together, strict=True):
        (alone,) = dense_crf(image, [unary], KERNELS["psa"])
        np.testing.assert_allclose(marginals, alone, atol=1e-5)
        assert (marginals.argmax(0) == alone.argmax(0)).mean() > 0.999
