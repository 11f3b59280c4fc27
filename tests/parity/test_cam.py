"""Parity with reference implementations: CRF, scores, fusion of scales, confident labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.labels import IGNORE
from models.maps import fuse_cams
from pipeline.config.params import MakeMasksConfig
from pipeline.make_masks import mask_channels
from pipeline.maps.background import hard_labels, with_background
from pipeline.maps.crf import KERNELS, dense_crf, label_energies, softmax_energies
from pipeline.scoring.scores import confusion_matrix, iou, mean, ratio
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


@pytest.mark.parametrize("path", golden("miou_"))
def test_scores(path: Path) -> None:
    file = load(path)
    labels = int(file["n_classes"])
    confusion = sum(
        (
            confusion_matrix(t[:h, :w], p[:h, :w], labels)
            for t, p, (h, w) in zip(file["gt"], file["pred"], file["sizes"], strict=True)
        ),
        np.zeros((labels, labels), dtype=np.int64),
    )
    np.testing.assert_array_equal(confusion, file["confusion"])
    np.testing.assert_allclose(iou(confusion), file["iou_per_class_f64"], atol=1e-9)
    assert mean(iou(confusion)) == pytest.approx(float(file["miou_nanmean"]), abs=1e-9)
    hit, predicted, true = np.diagonal(confusion), confusion.sum(0), confusion.sum(1)
    union = hit - hit + predicted + true - hit
    over = ratio(predicted - hit, predicted)
    np.testing.assert_allclose(over, file["over_activation_per_class_f64"], atol=1e-9)
    expected = {
        "over_activation_mean_fg": over[1:],
        "precision_mean": ratio(hit, predicted),
        "recall_mean": ratio(hit, true),
        "fp_over_union_mean": ratio(predicted - hit, union),
        "fn_over_union_mean": ratio(true - hit, union),
    }
    for name, values in expected.items():
        assert mean(values) == pytest.approx(float(file[name]), abs=1e-9), name


@pytest.mark.parametrize("path", golden("irn_camfuse_"))
def test_irn_fusion(path: Path) -> None:
    file = load(path)
    # The file's maps are sums over the view and its mirror image after ReLU.
    maps = [torch.from_numpy(file[f"maps_scale{number}"]) for number in range(len(file["scales_f64"]))]
    height, width = file["image_size"].tolist()
    small = ((height - 1) // 4 + 1, (width - 1) // 4 + 1)
    np.testing.assert_allclose(fuse_cams(maps, small, [small] * len(maps)).numpy(), file["cam"], atol=1e-5)
    covered = (16 * ((height - 1) // 16 + 1), 16 * ((width - 1) // 16 + 1))
    fused = fuse_cams(maps, (height, width), [covered] * len(maps))
    np.testing.assert_allclose(fused.numpy(), file["high_res"], atol=1e-5)


@pytest.mark.parametrize("path", golden("psa_camfuse_"))
def test_psa_fusion(path: Path) -> None:
    file = load(path)
    pairs = [torch.from_numpy(file[f"maps_scale{number}"]) for number in range(len(file["scales_f64"]))]
    maps = [plain + mirrored.flip(2) for plain, mirrored in pairs]
    size = tuple(file["image_size"].tolist())
    fused = fuse_cams(maps, size, [size] * len(maps)).numpy()
    np.testing.assert_allclose(fused, file["cam"], atol=1e-5)
    labels = hard_labels(with_background(fused, float(file["bg_threshold"])), tuple(file["class_ids"].tolist()))
    assert np.mean(labels == file["label"]) >= 0.999


@pytest.mark.parametrize("path", golden("irn_label_"))
def test_confident_labels(path: Path) -> None:
    file = load(path)
    config = MakeMasksConfig(
        crf="irn",
        crf_unary="labels",
        unary_labels=None,
        confidence_pair=[float(file["fg_threshold"]), float(file["bg_threshold"])],
        max_side=1024,
        bg_thresh=None,
    )
    channels = mask_channels(file["image"], file["cam"], None, config)
    labels = np.array([0, *file["class_ids"]], dtype=np.uint8)[np.where(channels == IGNORE, 0, channels)]
    labels[channels == IGNORE] = IGNORE
    assert np.mean(labels == file["label"]) >= 0.999
