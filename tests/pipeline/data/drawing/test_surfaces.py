"""Surfaces of scenes: grounds and coats, light and shadow."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.drawing.surfaces import COATS, GROUNDS, cast_shadow, draw_coat, draw_ground, illumination, relief

SIZE = (120, 160)


def disc() -> np.ndarray:
    y, x = np.indices(SIZE)
    return (y - 60) ** 2 + (x - 80) ** 2 < 40**2


@pytest.mark.parametrize("kind", GROUNDS)
def test_grounds_are_textured(kind: str) -> None:
    ground = draw_ground(np.random.default_rng(0), kind, SIZE)
    assert ground.shape == (*SIZE, 3) and ground.dtype == np.float32 and ground.std(axis=(0, 1)).min() > 3


@pytest.mark.parametrize("number", range(len(COATS)))
def test_coats_have_the_favourite_colour_on_average(number: int) -> None:
    coats = [draw_coat(np.random.default_rng(seed), (40, 40), number).mean(axis=(0, 1)) for seed in range(12)]
    assert np.abs(np.mean(coats, axis=0) - COATS[number]).max() < 40
    nearest = np.abs(np.array(COATS) - np.mean(coats, axis=0)).sum(axis=1)
    assert nearest[number] < np.median(nearest)


def test_bodies_are_bright_where_the_light_is() -> None:
    body = disc()
    for light, (bright, dark) in {0.0: (45, 115), np.pi: (115, 45)}.items():
        brightness = relief(body, light)[60, :, 0]
        assert brightness[bright] > 1 > brightness[dark]
    assert relief(body, 1.0).min() >= 0.5


def test_shadows_only_darken_and_light_is_uneven() -> None:
    picture = np.full((*SIZE, 3), 100, dtype=np.float32)
    cast_shadow(np.random.default_rng(3), disc(), picture)
    assert 60 <= picture.min() < 100 and picture.max() <= 100
    lit = illumination(np.random.default_rng(0), SIZE)
    assert lit.shape == (*SIZE, 1) and lit.min() > 0 and lit.std() > 0
