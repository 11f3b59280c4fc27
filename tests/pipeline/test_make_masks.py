"""Stage make_masks: the ignored region, the CRF."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.make_masks import MakeMasksConfig, mask_channels


def config(**changes: object) -> MakeMasksConfig:
    base = {
        "crf": None,
        "crf_unary": "labels",
        "unary_labels": None,
        "confidence_pair": None,
        "max_side": 512,
        "bg_thresh": 0.3,
    }
    return MakeMasksConfig.model_validate(base | changes)


def test_confidence_pair_truth_table() -> None:
    maps = np.array([[[0.9, 0.2, 0.01]]], np.float32)
    image = np.zeros((1, 3, 3), np.uint8)
    pair = config(confidence_pair=[0.5, 0.1])
    np.testing.assert_array_equal(mask_channels(image, maps, None, pair), [[1, 255, 0]])
    np.testing.assert_array_equal(mask_channels(image, maps, None, config()), [[1, 0, 0]])


@pytest.mark.parametrize("unary", ["labels", "softmax"])
def test_crf_follows_the_picture(unary: str) -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, 20:] = 255
    maps = np.zeros((1, 40, 40), np.float32)
    maps[0, :, 16:] = 0.9  # four columns too wide
    channels = mask_channels(image, maps, None, config(crf="irn", crf_unary=unary, bg_thresh=0.4))
    np.testing.assert_array_equal(channels, (image[..., 0] > 0).astype(np.uint8))
