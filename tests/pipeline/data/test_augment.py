"""Colour jitter of training views."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.knobs import Augmentation
from pipeline.data.augment import random_view

PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
PICTURE = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def view(strength: float, seed: int, picture: np.ndarray = PICTURE) -> torch.Tensor:
    settings = Augmentation(long_side=[40, 40], colour_jitter=strength, crop=40)
    pixels, _ = random_view(picture, None, settings, PLAIN, np.random.default_rng(seed))
    return pixels


def test_no_strength_changes_nothing() -> None:
    original = torch.from_numpy(PICTURE).permute(2, 0, 1) / 255
    assert any(torch.equal(view(0.0, seed), original) for seed in range(9)), "mirrored or not"


def test_colours_change_with_the_draw_and_repeat_with_the_seed() -> None:
    assert torch.equal(view(0.3, 1), view(0.3, 1))
    assert not torch.equal(view(0.3, 1), view(0.3, 2))
    assert len({view(0.3, seed).mean().item() for seed in range(8)}) == 8


@pytest.mark.parametrize("strength", [0.1, 0.5])
def test_brightness_of_a_grey_picture_stays_within_the_strength(strength: float) -> None:
    grey = np.full((40, 40, 3), 100, dtype=np.uint8)
    means = np.array([view(strength, seed, grey).mean().item() * 255 for seed in range(40)])
    assert (np.abs(means - 100) <= 100 * strength + 2).all(), "contrast, saturation and hue leave plain grey alone"
    assert np.abs(means - 100).max() > 50 * strength
