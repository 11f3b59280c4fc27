"""Background rules that read no mask."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.maps.background_rules import SET_RULES, STEPS, THRESHOLDS, colours, highest, image_threshold, otsu
from pipeline.maps.background_rules import histogram as counted
from tests.support.project import Pixels

SIZE = (24, 32)


def scene(rng: np.random.Generator) -> tuple[np.ndarray, Pixels]:
    """A noisy red object on grey; its map is about 0.7 on the object and falls from 0.4 to 0 around it."""
    inside = np.zeros(SIZE, dtype=bool)
    inside[6:18, 8:20] = True
    image = np.where(inside[..., None], (200, 40, 40), (110, 110, 110)) + rng.integers(-30, 30, (*SIZE, 3))
    values = np.where(inside, rng.normal(0.7, 0.05, SIZE), rng.uniform(0, 0.4, SIZE))
    return np.clip(values, 0, 1).astype(np.float32), image.astype(np.uint8)


def threshold(rule: str, *scenes: tuple[np.ndarray, Pixels]) -> float:
    return highest(SET_RULES[rule].merit(sum(SET_RULES[rule].evidence(*one) for one in scenes)))  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", SET_RULES)
def test_an_object_is_parted_from_its_surroundings_and_always_alike(rule: str) -> None:
    scenes = [scene(np.random.default_rng(seed)) for seed in range(3)]
    found = threshold(rule, *scenes)
    assert found in THRESHOLDS and found == threshold(rule, *scenes[::-1])
    assert (0.35 if rule == "colours" else 0.2) < found < 0.65


@pytest.mark.parametrize("rule", SET_RULES)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_maps_of_zeros_and_ones(rule: str, value: float) -> None:
    _, image = scene(np.random.default_rng(0))
    assert threshold(rule, (np.full(SIZE, value, np.float32), image)) == 1, "nothing is told apart: all is background"


@pytest.mark.parametrize("rule", SET_RULES)
@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_merit_is_finite_and_one_for_each_threshold(rule: str, value: float) -> None:
    for image in (scene(np.random.default_rng(0))[1], np.zeros((*SIZE, 3), np.uint8)):
        merit = SET_RULES[rule].merit(SET_RULES[rule].evidence(np.full(SIZE, value, np.float32), image))
        assert merit.shape == THRESHOLDS.shape and np.isfinite(merit).all()


@given(st.integers(0, 500))
def test_otsu_is_that_of_opencv(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.beta(rng.uniform(0.3, 3), rng.uniform(0.3, 3), SIZE).astype(np.float32)
    grey = np.round(values * STEPS).astype(np.uint8)
    step, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    assert image_threshold("otsu", values) == pytest.approx((step + 0.5) / STEPS)


def test_counts_of_photographs_add_up() -> None:
    one, other = (scene(np.random.default_rng(seed))[0] for seed in (1, 2))
    np.testing.assert_array_equal(otsu(counted(one) + counted(other)), otsu(counted(np.stack([one, other]))))


def test_colours_know_a_perfect_labelling_and_chance() -> None:
    labels = np.zeros(SIZE, np.float32)
    labels[:, 8:] = 0.8
    image = np.where(labels[..., None] > 0, 255, 0).astype(np.uint8).repeat(3, axis=2)
    merit = colours(labels, image)
    inside = THRESHOLDS < 0.8
    np.testing.assert_allclose(merit[inside], 1)
    np.testing.assert_allclose(merit[~inside], 0, atol=1e-9)
    assert colours(labels, np.full_like(image, 90)).max() < 1e-9, "one colour tells nothing"


@pytest.mark.parametrize("rule", ["otsu", "colours"])
def test_maps_of_zeros_and_ones_alone_are_parted(rule: str) -> None:
    strongest = np.zeros((20, 30), np.float32)
    strongest[5:15, 10:20] = 1
    image = np.repeat((200 * strongest).astype(np.uint8)[..., None], 3, axis=2)
    merit = otsu(counted(strongest)) if rule == "otsu" else colours(strongest, image)
    assert highest(merit) == pytest.approx(0.5, abs=0.01)
