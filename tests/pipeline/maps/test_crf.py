"""The dense CRF: energies, and several labellings in one field."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from models.kernels import KERNELS, kernels_for
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


def test_kernels_scale_with_the_picture_unless_published() -> None:
    assert kernels_for(None, (100, 250), 500) is None
    assert kernels_for("irn", (100, 250), None) == KERNELS["irn"]
    half = kernels_for("irn", (100, 250), 500)
    assert half == replace(KERNELS["irn"], smooth_sxy=1.5, bilateral_sxy=25.0)


@pytest.mark.parametrize("size", [(96, 128), (128, 80)])
def test_picture_twice_as_large_gives_the_same_labels(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    small = np.asarray(cv2.GaussianBlur(rng.integers(0, 256, (*size, 3), dtype=np.uint8), (0, 0), 3), dtype=np.uint8)
    small[size[0] // 4 : size[0] // 2, size[1] // 3 : size[1] // 2] = (200, 60, 40)
    hard = np.zeros(size, dtype=np.uint8)
    hard[size[0] // 4 - 6 : size[0] // 2 - 4, size[1] // 3 + 3 : size[1] // 2 + 5] = 1
    found = []
    for factor in (1, 2):
        image, labels = (array.repeat(factor, 0).repeat(factor, 1) for array in (small, hard))
        kernels = kernels_for("irn", image.shape[:2], 500)
        assert kernels is not None
        (marginals,) = dense_crf(image, [label_energies(labels, 2)], kernels)
        found.append(marginals.argmax(0)[::factor, ::factor])
    assert found[0].any() and np.mean(found[0] != hard) > 0.01  # the CRF moves labels
    assert np.mean(found[0] == found[1]) > 0.99
