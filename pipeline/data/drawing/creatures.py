"""Four-legged creatures: a body in the proportions of its class, and the part at the head that tells it apart."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.data.drawing.surfaces import COLOUR_SPREAD, Field, cast_shadow, draw_coat, relief, smooth_noise

CLASSES = ("bear", "elephant", "hare", "ram", "stag", "unicorn")
FAVOURITE_COAT_SHARE = 0.95


@dataclass(frozen=True)
class Build:
    """A class's proportions; one unit is the body's length.

    Attributes:
        height: of the trunk, half of it.
        leg: length of the legs below the trunk.
        leg_width: half of a leg's width.
        neck: how far the head stands above the trunk.
        head: half of the head's length.
    """

    height: float
    leg: float
    leg_width: float
    neck: float
    head: float


BUILDS = {
    "bear": Build(0.3, 0.16, 0.085, 0.1, 0.2),
    "elephant": Build(0.33, 0.2, 0.095, 0.12, 0.22),
    "hare": Build(0.27, 0.13, 0.065, 0.2, 0.2),
    "ram": Build(0.29, 0.2, 0.06, 0.22, 0.17),
    "stag": Build(0.23, 0.32, 0.055, 0.34, 0.16),
    "unicorn": Build(0.24, 0.3, 0.065, 0.32, 0.18),
}


@dataclass(frozen=True)
class Creature:
    """A creature's outline and the part that tells it apart, (H, W) bool.

    The areas are in pixels, as they would be without the picture's border.
    """

    kind: str
    outline: NDArray[np.bool_]
    key_part: NDArray[np.bool_]
    full_area: float
    key_area: float


def draw_creature(rng: np.random.Generator, kind: str, scale: float, size: tuple[int, int]) -> Creature:
    """Draw the outline of a creature at a random place and pose; `scale` is its length over the shorter side."""
    length = scale * min(size)
    margin = int(length)
    canvas = (size[0] + 2 * margin, size[1] + 2 * margin)
    angle, mirrored = rng.uniform(-0.3, 0.3), rng.random() < 0.5
    centre = margin + np.array([rng.uniform(0.25, 0.75) * size[1], rng.uniform(0.4, 0.7) * size[0]])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def place(points: NDArray[np.float64]) -> NDArray[np.int32]:
        local = points * ([-1, 1] if mirrored else [1, 1])
        return np.round(local @ turn.T * length + centre).astype(np.int32)

    body, key = np.zeros((2, *canvas), dtype=np.uint8)
    polygons, head = _body(rng, BUILDS[kind])
    for polygon in polygons:
        cv2.fillPoly(body, [place(polygon)], 1)
    for line, width in KEY_PARTS[kind](rng):
        cv2.polylines(key, [place(line + head)], isClosed=False, color=1, thickness=max(2, round(width * length)))
    whole, part = (body | key).astype(bool), (key > body)
    window = np.s_[margin : margin + size[0], margin : margin + size[1]]
    return Creature(kind, whole[window], part[window], float(whole.sum()), float(max(part.sum(), 1)))


def paint_creature(rng: np.random.Generator, creature: Creature, picture: Field, light: float) -> None:
    """Paint a creature into the picture (H, W, 3): its shadow, a coat that any class may wear, its class's part."""
    cast_shadow(rng, creature.outline, picture)
    favourite = CLASSES.index(creature.kind) if rng.random() < FAVOURITE_COAT_SHARE else None
    coat = draw_coat(rng, creature.outline.shape, favourite)
    key = np.array(KEY_COLOURS[creature.kind]) + rng.normal(0, COLOUR_SPREAD, 3)
    grain = 10 * smooth_noise(rng, creature.outline.shape, 50)[..., None]
    coat[creature.key_part] = (key + grain)[creature.key_part]
    picture[creature.outline] = (coat * relief(creature.outline, light))[creature.outline]


def _ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> NDArray[np.float64]:
    t = np.linspace(0, 2 * np.pi, 40)
    u, v = rx * np.cos(t), ry * np.sin(t)
    return np.stack([x + u * np.cos(turn) - v * np.sin(turn), y + u * np.sin(turn) + v * np.cos(turn)], axis=1)


def _body(rng: np.random.Generator, build: Build) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
    """Trunk, legs, tail, neck and head, and the middle of the head; one unit is the body's length, y points down."""
    height = build.height * rng.uniform(0.88, 1.12)
    legs = []
    for x in (-0.36, -0.22, 0.18, 0.32):
        foot = x + rng.uniform(-0.1, 0.1)
        length = height + build.leg * rng.uniform(0.85, 1.15)
        top, low = build.leg_width * 1.2, build.leg_width * 0.8
        legs.append(np.array([[x - top, 0.05], [x + top, 0.05], [foot + low, length], [foot - low, length]]))
    tail_x, tail_y = rng.uniform(-0.66, -0.56), rng.uniform(-0.2, 0.2)
    tail = np.array([[-0.42, -0.12], [-0.42, 0.0], [tail_x, tail_y + 0.04], [tail_x, tail_y]])
    head = np.array([0.5 + rng.uniform(-0.03, 0.03), -build.neck + rng.uniform(-0.05, 0.05)])
    throat, nape = head + np.array([0.08, 0.08]), head + np.array([-0.12, -0.06])
    neck = np.array([[0.2, -0.8 * height], [0.42, 0.3 * height], throat, nape])
    skull = _ellipse(head[0], head[1], build.head, 0.75 * build.head, 0.35)
    return [_ellipse(0, 0, 0.47, height), *legs, tail, neck, skull], head


Strokes = list[tuple[NDArray[np.float64], float]]


def _arc(x: float, y: float, radius: float, start: float, end: float, growth: float = 0.0) -> NDArray[np.float64]:
    t = np.linspace(0, 1, 24)
    r, a = radius * (1 + growth * t), start + (end - start) * t
    return np.stack([x + r * np.cos(a), y + r * np.sin(a)], axis=1)


def _antlers(rng: np.random.Generator) -> Strokes:
    strokes: Strokes = []
    for lean in (-1.0, 1.0):
        root = np.array([0.05 * lean, -0.1])
        top = root + np.array([0.2 * lean + rng.uniform(-0.04, 0.04), -0.32 + rng.uniform(-0.05, 0.05)])
        strokes.append((np.array([root, top]), 0.06))
        for along in (0.45, 0.8):
            fork = root + along * (top - root)
            strokes.append((np.array([fork, fork + np.array([-0.14 * lean, -0.14])]), 0.05))
    return strokes


def _long_ears(rng: np.random.Generator) -> Strokes:
    tips = [(-0.2, -0.42), (0.02, -0.45)]
    return [(np.array([[-0.05, -0.1], [x + rng.uniform(-0.06, 0.06), y]]), 0.11) for x, y in tips]


def _curled_horns(rng: np.random.Generator) -> Strokes:
    return [(_arc(-0.1, -0.05, 0.07, -0.5, -0.5 - rng.uniform(4.8, 5.6), 1.6), 0.085)]


def _one_horn(rng: np.random.Generator) -> Strokes:
    tip = np.array([0.28 + rng.uniform(-0.06, 0.06), -0.46 + rng.uniform(-0.05, 0.05)])
    root = np.array([0.04, -0.08])
    return [(np.array([root + share * (tip - root), root + (share + 0.34) * (tip - root)]), width)
            for share, width in ((0.0, 0.1), (0.33, 0.075), (0.66, 0.05))]  # fmt: skip


def _trunk(rng: np.random.Generator) -> Strokes:
    return [(_arc(0.12 + rng.uniform(0, 0.04), 0.28, 0.24, -1.5, rng.uniform(0.6, 1.2)), 0.11)]


def _round_ears(rng: np.random.Generator) -> Strokes:
    wobble = rng.uniform(-0.02, 0.02, size=2)
    return [(np.array([[x + wobble[0], y + wobble[1]]] * 2), 0.22) for x, y in ((-0.15, -0.12), (0.12, -0.15))]


KEY_PARTS = {
    "bear": _round_ears,
    "elephant": _trunk,
    "hare": _long_ears,
    "ram": _curled_horns,
    "stag": _antlers,
    "unicorn": _one_horn,
}


KEY_COLOURS = {
    "bear": (50, 42, 40),
    "elephant": (150, 150, 160),
    "hare": (215, 150, 150),
    "ram": (205, 165, 80),
    "stag": (125, 80, 45),
    "unicorn": (240, 232, 205),
}
