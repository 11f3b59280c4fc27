"""Creatures: every class has its proportions, its part at the head, and a solid body."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.drawing.creatures import BUILDS, CLASSES, KEY_COLOURS, KEY_PARTS, draw_creature, paint_creature

SIZE = (200, 220)


def test_every_class_is_described() -> None:
    assert set(BUILDS) == set(KEY_PARTS) == set(KEY_COLOURS) == set(CLASSES)


@pytest.mark.parametrize("kind", CLASSES)
def test_outline_holds_the_part_and_areas_those_beyond_the_border(kind: str) -> None:
    for seed in range(5):
        creature = draw_creature(np.random.default_rng(seed), kind, 0.6, SIZE)
        assert creature.outline.shape == creature.key_part.shape == SIZE
        assert not (creature.key_part & ~creature.outline).any()
        assert creature.full_area >= creature.outline.sum() > 0
        assert 0 < creature.key_area < 0.5 * creature.full_area and creature.key_area >= creature.key_part.sum()


@pytest.mark.parametrize("kind", CLASSES)
def test_paint_covers_the_outline(kind: str) -> None:
    rng = np.random.default_rng(0)
    creature = draw_creature(rng, kind, 0.6, SIZE)
    picture = np.full((*SIZE, 3), 1000, dtype=np.float32)
    paint_creature(rng, creature, picture, 0.0)
    assert (picture[creature.outline] < 400).all(), "painted"
    assert picture[~creature.outline].min() >= 590, "the ground is but in shadow"
