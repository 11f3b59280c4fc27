"""Scenes: every class by turns, exact masks, the same bytes from a seed, and how hard they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.data.drawing import scene
from pipeline.data.drawing.creatures import CLASSES, Creature
from pipeline.data.drawing.scene import MIN_KEY_VISIBLE, MIN_VISIBLE, OVERSAMPLING, draw_scene
from pipeline.data.drawing.surfaces import COATS, GROUNDS

SIZE = 96
Drawn = list[tuple[np.ndarray, list[Creature]]]


def test_classes_come_by_turns_and_masks_have_no_other_label() -> None:
    for index in range(2 * len(CLASSES)):
        picture, labels = draw_scene(0, "train", index, SIZE)
        assert picture.shape == (*labels.shape, 3) and picture.dtype == labels.dtype == np.uint8
        assert max(labels.shape) == SIZE and min(labels.shape) >= 0.75 * SIZE
        found = set(np.unique(labels).tolist())
        assert {0, index % len(CLASSES) + 1} <= found <= set(range(len(CLASSES) + 1))


def test_same_seed_gives_the_same_bytes_and_all_else_another_scene() -> None:
    first = draw_scene(0, "train", 3, SIZE)
    again = draw_scene(0, "train", 3, SIZE)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    for other in (draw_scene(1, "train", 3, SIZE), draw_scene(0, "val", 3, SIZE), draw_scene(0, "train", 9, SIZE)):
        assert not np.array_equal(first[0], other[0]) and not np.array_equal(first[1], other[1])


def test_masks_are_those_of_what_is_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    angles, ground = 2 * np.pi * np.arange(len(CLASSES)) / len(CLASSES), (0, 200, 0)
    colours = [(round(100 + 99 * np.cos(angle)), 0, round(100 + 99 * np.sin(angle))) for angle in angles]
    of = dict(zip(CLASSES, colours, strict=True))  # corners of a hexagon: no mixture of some is another

    def paint(_rng: Any, creature: Creature, picture: np.ndarray, _light: float) -> None:
        picture[creature.outline] = of[creature.kind]

    monkeypatch.setattr(scene, "paint_creature", paint)
    monkeypatch.setattr(scene, "paint_rock", lambda *_: None)
    monkeypatch.setattr(scene, "draw_ground", lambda _rng, _kind, size: np.full((*size, 3), ground, np.float32))
    monkeypatch.setattr(scene, "illumination", lambda _rng, size: np.ones((*size, 1), np.float32))
    for name, value in (("CAMOUFLAGE", (0, 0)), ("BLUR", (0.01, 0.01)), ("NOISE", (0, 0))):
        monkeypatch.setattr(scene, name, value)
    for index in range(12):
        picture, labels = draw_scene(0, "train", index, SIZE)
        assert (picture[labels > 0] != ground).any(axis=-1).all(), "what is labelled is at least partly painted"
        for number, kind in enumerate(CLASSES, start=1):
            whole = (picture == of[kind]).all(axis=-1)
            assert (labels[whole] == number).all()
            assert whole.sum() >= 0.7 * (labels == number).sum(), "but for pixels of an outline"


@pytest.fixture
def creatures(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Drawn]:
    """Draws scenes; the labels and the creatures of each."""
    made: list[Creature] = []
    draw, compose = scene.draw_creature, scene._compose

    def kept(*arguments: Any) -> Creature:
        made.append(draw(*arguments))
        return made[-1]

    def one_try(*arguments: Any) -> Any:
        made.clear()
        return compose(*arguments)

    monkeypatch.setattr(scene, "draw_creature", kept)
    monkeypatch.setattr(scene, "_compose", one_try)

    def run(count: int) -> Drawn:
        return [(draw_scene(5, "train", index, SIZE)[1], list(made)) for index in range(count)]

    return run


def test_creatures_and_the_parts_that_tell_them_apart_are_seen(creatures: Callable[..., Drawn]) -> None:
    thin = np.s_[::OVERSAMPLING, ::OVERSAMPLING]
    several = 0
    for labels, made in creatures(30):
        several += len(made) > 1
        for creature in made:
            own = labels == CLASSES.index(creature.kind) + 1
            for part, area, least in (
                (creature.key_part, creature.key_area, MIN_KEY_VISIBLE),
                (creature.outline, creature.full_area, MIN_VISIBLE),
            ):
                seen = OVERSAMPLING**2 * (own & part[thin]).sum() / area
                assert seen > least - 0.1, "but for the pixels that the mask is thinned to"
    assert several, "some scenes have creatures in front of others"


def test_ground_takes_the_colour_of_the_coat(monkeypatch: pytest.MonkeyPatch) -> None:
    def distances(share: float) -> tuple[list[np.ndarray], float]:
        monkeypatch.setattr(scene, "CAMOUFLAGE", (share, share))
        masks, found = [], []
        for index in range(len(CLASSES)):
            picture, labels = draw_scene(0, "train", index, SIZE)
            found.append(np.abs(picture[labels == 0].mean(axis=0) - COATS[index]).mean())
            masks.append(labels)
        return masks, float(np.mean(found))

    (masks, far), (same, middle), (_, near) = (distances(share) for share in (0.0, 0.5, 1.0))
    assert near < middle < far
    assert all(np.array_equal(one, other) for one, other in zip(masks, same, strict=True)), "masks stay as they are"


def test_grounds_and_coats_that_go_with_classes_exist() -> None:
    assert set(scene.FAVOURITE_GROUND) <= set(CLASSES) and set(scene.FAVOURITE_GROUND.values()) <= set(GROUNDS)
    assert len(COATS) == len(CLASSES)
