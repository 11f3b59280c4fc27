"""The dense CRF, with published and scaled kernels, against arrays of the library that the released programs use."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.kernels import KERNELS, Kernels, kernels_for
from pipeline.maps.crf import dense_crf, label_energies, softmax_energies
from tests.support.golden_files import golden, load

CRF_SETTINGS = ("psa", "irn", "deeplab", "toco_seg", "toco_cam", "afa", "bao91", "transcam21")


@pytest.mark.parametrize("setting", CRF_SETTINGS)
@pytest.mark.parametrize("path", golden("crf_"))
def test_crf(path: Path, setting: str) -> None:
    file = load(path)
    sxy, weight, bilateral_sxy, srgb, bilateral_weight, labels = file[f"params_{setting}"].tolist()
    kernels = replace(
        KERNELS["irn" if setting in ("bao91", "transcam21") else setting], iterations=int(file["iterations"])
    )
    stated = (kernels.smooth_sxy, kernels.smooth_weight, kernels.bilateral_sxy, kernels.bilateral_srgb)
    assert (*stated, kernels.bilateral_weight) == (sxy, weight, bilateral_sxy, srgb, bilateral_weight)
    channels = len(file["prob"])
    if str(file[f"unary_{setting}"]) == "labels":
        # The reference lets all its labels take part; leaving the absent ones out changes a pixel in a thousand.
        unary = label_energies(file["hard_label"], labels)
        present = label_energies(file["hard_label"], channels, labels)
        (restricted,) = dense_crf(file["image"], [present], kernels)
        assert np.mean(restricted.argmax(0) == file[f"label_{setting}"]) >= 0.998
    else:
        unary = softmax_energies(file["prob"])
    (marginals,) = dense_crf(file["image"], [unary], kernels)
    assert np.mean(marginals.argmax(0) == file[f"label_{setting}"]) >= 0.999
    if f"q10_{setting}" in file:
        (first,) = dense_crf(file["image"], [unary], replace(kernels, iterations=1))
        assert np.abs(marginals - file[f"q10_{setting}"]).max() <= 1e-3
        assert np.abs(first - file[f"q1_{setting}"]).max() <= 1e-3


LONG_SIDE = 100_000
"""A reference long enough for any share to be a whole number of pixels."""

SEGMENTERS = {"deeplabv1_r38": "deeplabv1_resnet38"}
"""Our names of settings that are called otherwise in the files."""

SCALED = ("psa_half", "irn_scaled")
"""Settings whose deviations are a share of published ones."""


@pytest.mark.parametrize("setting", ["mctformer", "deeplabv1_r38", *SCALED])
@pytest.mark.parametrize("path", golden("segcrf_"))
def test_segmenter_and_scaled_crf(path: Path, setting: str) -> None:
    file = load(path)
    sxy, weight, bilateral_sxy, srgb, bilateral_weight = file[f"params_{setting}"].tolist()
    kernels = Kernels(sxy, weight, bilateral_sxy, srgb, bilateral_weight, int(file[f"iterations_{setting}"]))
    if setting not in SCALED:
        assert KERNELS[SEGMENTERS.get(setting, setting)] == kernels
    if setting in SCALED:
        name, published = setting.split("_")[0], KERNELS[setting.split("_")[0]]
        picture = round(LONG_SIDE * sxy / published.smooth_sxy)  # its longer side, as a share of the reference
        ours = kernels_for(name, (picture // 2, picture), LONG_SIDE)
        assert ours is not None
        assert (ours.smooth_sxy, ours.bilateral_sxy) == pytest.approx((sxy, bilateral_sxy), rel=1e-4)
        assert (ours.smooth_weight, ours.bilateral_srgb, ours.bilateral_weight) == (weight, srgb, bilateral_weight)
    (marginals,) = dense_crf(file["image"], [softmax_energies(file["prob"])], kernels)
    assert np.abs(marginals - file[f"q_{setting}"]).max() <= 1e-3
    assert np.mean(marginals.argmax(0) == file[f"label_{setting}"]) >= 0.999
