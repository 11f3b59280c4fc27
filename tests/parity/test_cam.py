"""The fusion of scales against arrays computed with the released programs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.maps import fuse_cams
from pipeline.maps.background import hard_labels, with_background
from tests.support.golden_files import golden, load


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
