"""Sizes and colour jitter of training views."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from models.knobs import Augmentation
from pipeline.data.augment import random_size, random_view, size_range

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


def sizes(settings: Augmentation, photograph: tuple[int, int] = (300, 400)) -> set[tuple[int, int]]:
    rng = np.random.default_rng(0)
    return {random_size(photograph, settings, rng) for _ in range(200)}


def test_sizes_are_factors_of_the_photograph_or_pixels() -> None:
    steps = Augmentation(scale=[0.5, 1.5], scale_step=0.25, crop=64)
    assert sizes(steps) == {(150, 200), (225, 300), (300, 400), (375, 500), (450, 600)}
    assert sizes(steps, (600, 800)) == {(2 * height, 2 * width) for height, width in sizes(steps)}
    between = sizes(Augmentation(scale=[0.5, 1.5], crop=64))
    assert len(between) > 100 and min(between) >= (150, 200) and max(between) <= (450, 600)
    assert sizes(Augmentation(scale=[1.0, 1.0], crop=64)) == {(300, 400)}
    assert size_range((300, 400), steps) == (200, 600)
    pixels = Augmentation(long_side=[100, 102], crop=64)
    assert sizes(pixels) == {(75, 100), (76, 101), (76, 102)} == sizes(pixels, (600, 800))
    assert size_range((300, 400), pixels) == (100, 102)


@pytest.mark.parametrize(
    ("knobs", "reason"),
    [
        ({}, "one of long_side"),
        ({"long_side": [1, 2], "scale": [0.5, 1.0]}, "one of long_side"),
        ({"scale": [1.5, 0.5]}, "scale is a pair smallest, largest"),
        ({"long_side": [2, 1]}, "long_side is a pair smallest, largest"),
        ({"long_side": [1, 2], "scale_step": 0.25}, "scale_step = 0.25 needs a scale"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(knobs: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Augmentation(crop=64, **knobs)
