"""The bundled data set: scenes of four-legged creatures, drawn in code, deterministic from a seed, no download.

The six classes share body, legs, tail and head in their own proportions; a part at the head tells them apart for
certain (antlers, long ears, curled horns, one horn, a trunk, round ears). Most coats are the class's own, the others
are drawn from all. A classifier therefore looks at that part first, and its CAM covers little else: the problem that
weakly-supervised segmentation works on. Some grounds go together with a class (`FAVOURITE_GROUND`), so that a CAM may
also leak onto the background. Stones wear coats too, bodies are lit and cast shadows, light falls unevenly, and the
picture is blurred and noisy: grouping colours alone finds no creature. Trunks are solid and legs thin, and both are wide
enough for the grid of a CAM. Masks are exact. `make instrument` holds all of this to bars.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from pipeline.config.data import ScenesData
from pipeline.data.manifest import PREPARED, Record
from pipeline.data.masks import write_mask
from pipeline.data.sources.source import PrepareDataConfig, Source
from pipeline.run.files import new_folder

CLASSES = ("bear", "elephant", "hare", "ram", "stag", "unicorn")
GROUNDS = ("grass", "sand", "water", "bricks", "snow", "wood")
FAVOURITE_GROUND = {"hare": "grass", "ram": "bricks", "elephant": "sand"}
FAVOURITE_SHARE = 0.6
FAVOURITE_COAT_SHARE = 0.9
SHAPES = ((1.0, 1.0), (0.8, 1.0), (1.0, 0.8))
OVERSAMPLING = 2
MIN_VISIBLE = 0.55  # of a creature
MIN_KEY_VISIBLE = 0.8  # of the part that tells it apart
SCALES = ((0.55, 0.9), (0.45, 0.65), (0.4, 0.55))  # of a creature, in scenes of one, two and three
COLOUR_SPREAD = 12.0  # of the painted parts, in grey levels
RELIEF = 0.5  # how much darker a body is on its far side
BLUR, NOISE = (0.4, 0.9), (2.0, 6.0)  # in pixels; in grey levels

Canvas = NDArray[np.uint8]
Field = NDArray[np.float32]


def read(config: PrepareDataConfig) -> Source:
    """Draw the data set into `data/prepared/scenes` and describe it."""
    settings = ScenesData.model_validate(config.source)
    wanted = CLASSES if config.classes == "all" else tuple(config.classes)
    unknown = [name for name in wanted if name not in CLASSES]
    problems = [f"data.classes: scenes draw no {name!r}; they draw {', '.join(CLASSES)}" for name in unknown]
    counts = {"train": settings.train, "val": settings.val}
    records: list[Record] = []
    masks: dict[str, str] = {}
    with new_folder(PREPARED / "scenes") as folder:
        for split, count in counts.items():
            count = min(count, config.limit or count)
            for index in tqdm(range(count), desc=f"drawing {split} scenes", disable=None):
                name = f"{split}_{index:05d}"
                image, labels = draw_scene(settings.seed, split, index, settings.size)
                save_scene(folder, name, image, labels)
                tags = tuple(c for c in wanted if c in CLASSES and np.any(labels == CLASSES.index(c) + 1))
                records.append(Record(name, split, f"images/{name}.png", image.shape[1], image.shape[0], tags))
                masks[name] = f"masks/{name}.png"
    label_map = None
    if wanted != CLASSES:
        label_map = list(range(256))
        label_map[1 : len(CLASSES) + 1] = [0] * len(CLASSES)
        for number, name in enumerate(wanted, start=1):
            if name in CLASSES:
                label_map[CLASSES.index(name) + 1] = number
    return Source(records, list(wanted), masks, label_map, [], problems)


def save_scene(folder: Path, name: str, image: Canvas, labels: Canvas) -> None:
    """Write one scene's picture and mask as PNG."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(exist_ok=True)
    Image.fromarray(image).save(folder / "images" / f"{name}.png", compress_level=6)
    write_mask(folder / "masks" / f"{name}.png", labels)


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
    for _ in range(rng.integers(0, 4)):
        paint_rock(rng, picture, light)
    for creature in creatures:
        paint_creature(rng, creature, picture, light)
    for plant in plants:
        green = rng.random() < 0.5
        colour = np.array((70, 105, 50) if green else (115, 85, 60)) + rng.normal(0, COLOUR_SPREAD, 3)
        picture[plant] = (colour + 12 * smooth_noise(rng, big, 40)[..., None])[plant]
    small = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small * _illumination(rng, size), (0, 0), rng.uniform(*BLUR))
    small = small + rng.normal(0, rng.uniform(*NOISE), size=small.shape)
    names = np.array([0, *(CLASSES.index(kind) + 1 for kind in kinds)], dtype=np.uint8)
    return np.clip(small, 0, 255).astype(np.uint8), names[owner[::OVERSAMPLING, ::OVERSAMPLING]]


def _illumination(rng: np.random.Generator, size: tuple[int, int]) -> Field:
    """Brightness (H, W, 1) that changes from one side of the scene to the other, as under a low sun."""
    y, x = np.mgrid[-0.5 : 0.5 : size[0] * 1j, -0.5 : 0.5 : size[1] * 1j].astype(np.float32)
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.5)
    return np.asarray(rng.uniform(0.75, 1.1) * (1 + strength * (x * np.cos(angle) + y * np.sin(angle))))[..., None]


# --------------------------------------------------------------------------------------------------------- creatures


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
    """Paint a creature into the picture (H, W, 3): its shadow, a coat that any class may wear, the part of its class."""
    _cast_shadow(rng, creature.outline, picture)
    favourite = CLASSES.index(creature.kind) if rng.random() < FAVOURITE_COAT_SHARE else None
    coat = draw_coat(rng, creature.outline.shape, favourite)
    key = np.array(KEY_COLOURS[creature.kind]) + rng.normal(0, COLOUR_SPREAD, 3)
    grain = 10 * smooth_noise(rng, creature.outline.shape, 50)[..., None]
    coat[creature.key_part] = (key + grain)[creature.key_part]
    picture[creature.outline] = (coat * relief(creature.outline, light))[creature.outline]


def relief(outline: NDArray[np.bool_], light: float) -> Field:
    """Brightness (H, W, 1) of a round body of this outline, lit from the direction `light` in radians."""
    soft = cv2.GaussianBlur(outline.astype(np.float32), (0, 0), 0.03 * max(outline.shape))
    down, right = np.gradient(soft)
    lit = (np.cos(light) * right + np.sin(light) * down) * 0.03 * max(outline.shape)
    return np.asarray(1 + RELIEF * np.clip(lit, -1, 1))[..., None]


def _cast_shadow(rng: np.random.Generator, outline: NDArray[np.bool_], picture: Field) -> None:
    """Darken the ground beside a body."""
    shift = rng.uniform(-0.06, 0.06, size=2) * outline.shape
    move = np.array([[1, 0, shift[1]], [0, 1, shift[0] + 0.03 * outline.shape[0]]], dtype=np.float32)
    fallen = cv2.warpAffine(outline.astype(np.float32), move, outline.shape[::-1])
    picture *= 1 - rng.uniform(0, 0.4) * cv2.GaussianBlur(fallen, (0, 0), 0.015 * max(outline.shape))[..., None]


def paint_rock(rng: np.random.Generator, picture: Field, light: float) -> None:
    """Paint a stone of a coat's colour and texture into the picture (H, W, 3); it belongs to the background."""
    size = picture.shape[:2]
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    centre, radii = rng.uniform(0, 1, size=2) * size, rng.uniform(0.06, 0.2, size=2) * min(size)
    bumps = 0.12 * smooth_noise(rng, size, 8)
    outline = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 + bumps < 1
    _cast_shadow(rng, outline, picture)
    picture[outline] = (draw_coat(rng, size, None) * relief(outline, light))[outline]


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
    neck = np.array([[0.2, -0.8 * height], [0.42, 0.3 * height], head + [0.08, 0.08], head + [-0.12, -0.06]])
    return [_ellipse(0, 0, 0.47, height), *legs, tail, neck, _ellipse(*head, build.head, 0.75 * build.head, 0.35)], head


Strokes = list[tuple[NDArray[np.float64], float]]


def _arc(x: float, y: float, radius: float, start: float, end: float, growth: float = 0.0) -> NDArray[np.float64]:
    t = np.linspace(0, 1, 24)
    r, a = radius * (1 + growth * t), start + (end - start) * t
    return np.stack([x + r * np.cos(a), y + r * np.sin(a)], axis=1)


def _antlers(rng: np.random.Generator) -> Strokes:
    strokes: Strokes = []
    for lean in (-1.0, 1.0):
        root = np.array([0.05 * lean, -0.1])
        top = root + [0.2 * lean + rng.uniform(-0.04, 0.04), -0.32 + rng.uniform(-0.05, 0.05)]
        strokes.append((np.array([root, top]), 0.06))
        for along in (0.45, 0.8):
            fork = root + along * (top - root)
            strokes.append((np.array([fork, fork + [-0.14 * lean, -0.14]]), 0.05))
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


def draw_coat(rng: np.random.Generator, size: tuple[int, int], favourite: int | None) -> Field:
    """A coat (H, W, 3) of one of the six colours and three patterns: the favourite one, or any."""
    colours = [[95, 70, 55], [115, 115, 125], [175, 150, 120], [190, 185, 175], [165, 110, 65], [205, 190, 205]]
    pick = favourite if favourite is not None else int(rng.integers(len(colours)))
    coat = np.array(colours[pick]) + rng.normal(0, 10, 3) + 14 * smooth_noise(rng, size, 6)[..., None]
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


# ----------------------------------------------------------------------------------------------------------- grounds


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], cells: int) -> Field:
    """Noise (H, W) of about unit variance that changes over 1 / `cells` of the picture."""
    coarse = rng.normal(size=(cells + 3, cells + 3)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.float32)


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
