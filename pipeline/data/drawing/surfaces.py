"""Surfaces of a scene: noise, coats, grounds, light and shadow; all in grey levels, (H, W, 3) float32."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

GROUNDS = ("grass", "sand", "water", "bricks", "snow", "wood")
COATS = ((95, 70, 55), (115, 115, 125), (175, 150, 120), (190, 185, 175), (165, 110, 65), (205, 190, 205))
"""The favourite colour of each class."""
COLOUR_SPREAD = 12.0
"""Of the colours of painted parts, in grey levels."""
RELIEF = 0.5
"""How much darker a body is on its far side."""

Field = NDArray[np.float32]


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], cells: int) -> Field:
    """Noise (H, W) of about unit variance that changes over 1 / `cells` of the picture."""
    coarse = rng.normal(size=(cells + 3, cells + 3)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def draw_coat(rng: np.random.Generator, size: tuple[int, int], favourite: int | None) -> Field:
    """A coat (H, W, 3) of one of the six colours and three patterns: the favourite one, or any."""
    pick = favourite if favourite is not None else int(rng.integers(len(COATS)))
    coat = np.array(COATS[pick]) + rng.normal(0, 10, 3) + 14 * smooth_noise(rng, size, 6)[..., None]
    pattern = pick % 3 if favourite is not None else int(rng.integers(3))
    if pattern == 1:
        coat = np.where(smooth_noise(rng, size, 18)[..., None] > 0.9, coat * 0.6, coat)
    elif pattern == 2:
        y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
        period, angle = rng.uniform(0.05, 0.1) * size[0], rng.uniform(0, np.pi)
        stripes = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period) > 0.5
        coat = np.where(stripes[..., None], coat * 0.7, coat)
    shade = np.linspace(1.12, 0.82, size[0], dtype=np.float32)[:, None, None]
    return np.asarray(coat * shade, dtype=np.float32)


def draw_ground(rng: np.random.Generator, kind: str, size: tuple[int, int]) -> Field:
    """A textured ground (H, W, 3)."""
    colours = {
        "grass": (90, 130, 60), "sand": (200, 175, 125), "water": (70, 115, 150),
        "bricks": (150, 85, 65), "snow": (215, 220, 228), "wood": (125, 92, 62),
    }  # fmt: skip
    ground = (
        np.array(colours[kind], dtype=np.float32) + rng.normal(0, 8, 3) + 12 * smooth_noise(rng, size, 4)[..., None]
    )
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32) / max(size)
    if kind == "grass":
        blades = smooth_noise(rng, (size[0] // 12, size[1]), 60)
        ground += 22 * cv2.resize(blades, size[::-1])[..., None]
    elif kind == "sand":
        ground += 14 * rng.normal(size=(*size, 1))
    elif kind == "water":
        ground += 18 * np.sin(2 * np.pi * (14 * y + 0.6 * smooth_noise(rng, size, 6)))[..., None]
    elif kind == "bricks":
        row = np.floor(y * 12)
        joint = ((y * 12) % 1 < 0.1) | ((x * 6 + 0.5 * (row % 2)) % 1 < 0.06)
        ground = np.where(joint[..., None], np.float32(175), ground)
    elif kind == "snow":
        ground += 9 * smooth_noise(rng, size, 14)[..., None]
    elif kind == "wood":
        ground += 20 * np.sin(2 * np.pi * (9 * x + 0.8 * smooth_noise(rng, size, 3)))[..., None]
    return np.asarray(ground, dtype=np.float32)


def relief(outline: NDArray[np.bool_], light: float) -> Field:
    """Brightness (H, W, 1) of a round body of this outline, lit from the direction `light` in radians."""
    soft = cv2.GaussianBlur(outline.astype(np.float32), (0, 0), 0.03 * max(outline.shape))
    down, right = np.gradient(soft)
    lit = (np.cos(light) * right + np.sin(light) * down) * 0.03 * max(outline.shape)
    return np.asarray(1 + RELIEF * np.clip(lit, -1, 1))[..., None]


def cast_shadow(rng: np.random.Generator, outline: NDArray[np.bool_], picture: Field) -> None:
    """Darken the ground beside a body."""
    shift = rng.uniform(-0.06, 0.06, size=2) * outline.shape
    move = np.array([[1, 0, shift[1]], [0, 1, shift[0] + 0.03 * outline.shape[0]]], dtype=np.float32)
    fallen = cv2.warpAffine(outline.astype(np.float32), move, outline.shape[::-1])
    picture *= 1 - rng.uniform(0, 0.4) * cv2.GaussianBlur(fallen, (0, 0), 0.015 * max(outline.shape))[..., None]


def illumination(rng: np.random.Generator, size: tuple[int, int]) -> Field:
    """Brightness (H, W, 1) that changes from one side of the scene to the other, as under a low sun."""
    y, x = np.mgrid[-0.5 : 0.5 : size[0] * 1j, -0.5 : 0.5 : size[1] * 1j].astype(np.float32)
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.5)
    return np.asarray(rng.uniform(0.75, 1.1) * (1 + strength * (x * np.cos(angle) + y * np.sin(angle))))[..., None]
