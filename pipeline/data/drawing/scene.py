"""A scene: creatures, stones and plants on a ground, and the exact mask; deterministic from a seed."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.data.drawing.creatures import CLASSES, draw_creature, paint_creature
from pipeline.data.drawing.surfaces import (
    COATS,
    COLOUR_SPREAD,
    GROUNDS,
    Field,
    cast_shadow,
    draw_coat,
    draw_ground,
    illumination,
    relief,
    smooth_noise,
)

FAVOURITE_GROUND = {"hare": "grass", "ram": "bricks", "elephant": "sand"}
FAVOURITE_SHARE = 0.6
SHAPES = ((1.0, 1.0), (0.8, 1.0), (1.0, 0.8))
OVERSAMPLING = 2
MIN_VISIBLE = 0.55  # of a creature
MIN_KEY_VISIBLE = 0.8  # of the part that tells it apart
SCALES = ((0.6, 1.0), (0.5, 0.7), (0.42, 0.58))  # of a creature, in scenes of one, two and three
CAMOUFLAGE = (0.1, 0.7)  # how far the ground takes the colour of the first creature
BLUR, NOISE = (0.4, 0.9), (2.0, 6.0)  # in pixels; in grey levels

Canvas = NDArray[np.uint8]


def draw_scene(seed: int, split: str, index: int, size: int) -> tuple[Canvas, Canvas]:
    """Draw one scene.

    Args:
        seed: of the whole data set.
        split: train or val; the two never share a scene.
        index: number of the scene in its split.
        size: length of the longer side in pixels.

    Returns:
        Picture (H, W, 3) uint8 RGB, and labels (H, W) uint8: 0 background, k for `CLASSES[k - 1]`.
    """
    rng = np.random.default_rng([seed, int(split == "val"), index])
    # Classes come round by turns, so that small data sets hold all of them.
    first = CLASSES[index % len(CLASSES)]
    others = rng.choice(CLASSES, size=rng.choice([0, 1, 2], p=[0.65, 0.27, 0.08]))
    kinds = [first, *(str(name) for name in others)]
    height, width = (round(size * side) for side in SHAPES[rng.integers(len(SHAPES))])
    while True:
        scene = _compose(rng, kinds, (height, width))
        if scene is not None:
            return scene


def _compose(rng: np.random.Generator, kinds: list[str], size: tuple[int, int]) -> tuple[Canvas, Canvas] | None:
    """One try at a scene; nothing where a creature, or the part that tells it apart, is too much covered."""
    big = (size[0] * OVERSAMPLING, size[1] * OVERSAMPLING)
    low, high = SCALES[min(len(kinds), len(SCALES)) - 1]
    scales = np.sort(rng.uniform(low, high, size=len(kinds)))
    creatures = [draw_creature(rng, kind, float(scale), big) for kind, scale in zip(kinds, scales, strict=True)]
    plants = [draw_plant(rng, big) for _ in range(rng.integers(0, 3))]
    owner = np.zeros(big, dtype=np.uint8)
    for number, creature in enumerate(creatures, start=1):
        owner[creature.outline] = number
    for plant in plants:
        owner[plant] = 0
    for number, creature in enumerate(creatures, start=1):
        seen = owner == number
        key_seen = (seen & creature.key_part).sum() / creature.key_area
        if seen.sum() < MIN_VISIBLE * creature.full_area or key_seen < MIN_KEY_VISIBLE:
            return None

    favourite = FAVOURITE_GROUND.get(kinds[0]) if rng.random() < FAVOURITE_SHARE else None
    light = rng.uniform(0, 2 * np.pi)
    picture = draw_ground(rng, favourite or str(rng.choice(GROUNDS)), big)
    coat = np.array(COATS[CLASSES.index(kinds[0])])
    picture += (rng.uniform(*CAMOUFLAGE) * (coat - picture.mean(axis=(0, 1)))).astype(np.float32)
    for _ in range(rng.integers(0, 4)):
        paint_rock(rng, picture, light)
    for creature in creatures:
        paint_creature(rng, creature, picture, light)
    for plant in plants:
        green = rng.random() < 0.5
        colour = np.array((70, 105, 50) if green else (115, 85, 60)) + rng.normal(0, COLOUR_SPREAD, 3)
        picture[plant] = (colour + 12 * smooth_noise(rng, big, 40)[..., None])[plant]
    small = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small * illumination(rng, size), (0, 0), rng.uniform(*BLUR))
    small = small + rng.normal(0, rng.uniform(*NOISE), size=small.shape)
    names = np.array([0, *(CLASSES.index(kind) + 1 for kind in kinds)], dtype=np.uint8)
    return np.clip(small, 0, 255).astype(np.uint8), names[owner[::OVERSAMPLING, ::OVERSAMPLING]]


def paint_rock(rng: np.random.Generator, picture: Field, light: float) -> None:
    """Paint a stone of a coat's colour and texture into the picture (H, W, 3); it belongs to the background."""
    size = picture.shape[:2]
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    centre, radii = rng.uniform(0, 1, size=2) * size, rng.uniform(0.06, 0.2, size=2) * min(size)
    bumps = 0.12 * smooth_noise(rng, size, 8)
    outline = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 + bumps < 1
    cast_shadow(rng, outline, picture)
    picture[outline] = (draw_coat(rng, size, None) * relief(outline, light))[outline]


def draw_plant(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The outline (H, W) of a post or a tuft in front of everything; it belongs to the background."""
    height, width = size
    cover = np.zeros(size, dtype=np.uint8)
    if rng.random() < 0.5:
        x = int(rng.uniform(0, width))
        cv2.rectangle(cover, (x, int(rng.uniform(0.2, 0.6) * height)), (x + int(0.03 * width), height), 1, -1)
    else:
        foot = np.array([rng.uniform(0, width), height * rng.uniform(0.85, 1.05)])
        for angle in rng.uniform(-2.6, -0.5, size=14):
            tip = foot + rng.uniform(0.12, 0.25) * height * np.array([np.cos(angle), np.sin(angle)])
            cv2.line(
                cover,
                tuple(foot.astype(int).tolist()),
                tuple(tip.astype(int).tolist()),
                1,
                max(2, height // 60),
            )
    return cover.astype(bool)
