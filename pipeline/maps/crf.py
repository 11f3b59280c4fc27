"""Fully connected CRF (Kraehenbuehl & Koltun, NeurIPS 2011) through pydensecrf, with published settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.kernels import Kernels
from pipeline.maps.background import hard_channels
from pipeline.run.errors import UserError

GT_PROB = 0.7
FLOOR = 1e-5

Energies = NDArray[np.float32]


def label_energies(labels: NDArray[np.integer], channels: int, unary_labels: int | None = None) -> Energies:
    """Energies of hard labels that are right with probability 0.7.

    Args:
        labels: (H, W) channel indices in [0, channels).
        channels: channels that take part (background and the classes present).
        unary_labels: how many labels share the remaining 0.3; None: `channels`. A method that runs its CRF over all
            21 labels is reproduced by 21 here while only the present ones take part: 0.05 % of pixels differ.

    Returns:
        (channels, H * W) float32: -log 0.7 for the pixel's label, -log(0.3 / (unary_labels - 1)) for the others.
    """
    others = max((unary_labels or channels) - 1, 1)
    energies = np.full((channels, labels.size), -np.log((1 - GT_PROB) / others), dtype=np.float32)
    energies[labels.ravel(), np.arange(labels.size)] = -np.log(GT_PROB)
    return energies


def softmax_energies(probabilities: NDArray[np.float32]) -> Energies:
    """Energies (K, H * W) of probabilities (K, H, W): -log, with a floor of 1e-5."""
    flat = probabilities.reshape(len(probabilities), -1)
    return np.ascontiguousarray(-np.log(np.clip(flat, FLOOR, 1)), dtype=np.float32)


def dense_crf(image: NDArray[np.uint8], unaries: list[Energies], kernels: Kernels) -> list[NDArray[np.float32]]:
    """Marginals after mean-field inference, for one or several unaries on the same image.

    Several unaries share the lattices, which depend on the image alone, and every filtering step: their channels lie
    in one field whose marginals are normalised apart after each step. Potts penalties never cross channels, so each
    unary gets what it would alone.

    Args:
        image: (H, W, 3) uint8 RGB.
        unaries: each (K, H * W) energies, all with the same K >= 1.
        kernels: settings.

    Returns:
        For each unary (K, H, W) float32, summing to 1 over K.
    """
    height, width = image.shape[:2]
    count, channels = len(unaries), len(unaries[0])
    if channels == 1:
        return [np.ones((1, height, width), dtype=np.float32) for _ in unaries]
    crf = _library().DenseCRF2D(width, height, count * channels)
    crf.addPairwiseGaussian(sxy=kernels.smooth_sxy, compat=kernels.smooth_weight)
    crf.addPairwiseBilateral(
        sxy=kernels.bilateral_sxy,
        srgb=kernels.bilateral_srgb,
        rgbim=np.array(image, order="C"),  # pydensecrf refuses read-only arrays
        compat=kernels.bilateral_weight,
    )
    crf.setUnaryEnergy(np.ascontiguousarray(np.concatenate(unaries)))
    if count == 1:
        return [np.array(crf.inference(kernels.iterations), dtype=np.float32).reshape(channels, height, width)]
    field, *scratch = crf.startInference()
    marginals = np.asarray(field).reshape(count, channels, height, width)  # a view: steps read what is written here
    for step in range(kernels.iterations + 1):
        if step:
            crf.stepInference(field, *scratch)
        marginals /= marginals.sum(axis=1, keepdims=True)
    return list(marginals.copy())


def crf_channels(
    image: NDArray[np.uint8],
    scores: Sequence[NDArray[np.float32]],
    kernels: Kernels | None,
    unary: Literal["labels", "softmax"],
    unary_labels: int | None = None,
) -> list[NDArray[np.uint8]]:
    """The winning channel at each pixel, for one or several stacks of scores on the same image.

    Args:
        image: (H, W, 3) uint8 RGB.
        scores: each (K + 1, H, W) in [0, 1], the background first.
        kernels: settings, or None to leave the CRF out.
        unary: energies from hard labels or from the scores themselves.
        unary_labels: see `label_energies`.

    Returns:
        For each stack (H, W) uint8.
    """
    channels = [hard_channels(stack) for stack in scores]
    if kernels is None:
        return channels
    if unary == "labels":
        unaries = [label_energies(hard, len(scores[0]), unary_labels) for hard in channels]
    else:
        unaries = [softmax_energies(stack) for stack in scores]
    return [hard_channels(marginals) for marginals in dense_crf(image, unaries, kernels)]


def _library():  # type: ignore[no-untyped-def]
    """pydensecrf, imported late: it is compiled on installation, and a light stage should start without it."""
    try:
        from pydensecrf import densecrf
    except ImportError as error:
        raise UserError(
            f"the dense CRF is not installed ({error}): `pip install pydensecrf2` (needs a C++ compiler), or set to "
            "none what asks for it: masks.crf, predict.crf, affinity.crf, localizer.<method>.crf"
        ) from error
    return densecrf
