"""The three views of a photograph that token contrast (ToCo) trains on, augmented each in its own way.

Mirroring of the two views of one window is left to the training step, which turns them together with one draw
(`models.toco.crops.mirror_views`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.data.augment import jittered, normalise, random_size, window
from pipeline.data.dataset import TaggedViews
from pipeline.data.images import resize_image

Pixels = NDArray[np.uint8]
PUBLISHED_CROP = 448  # blur radii are in pixels of a crop of this side
SOLARISE_FROM = 128


@dataclass(frozen=True)
class ColourAugmentation:
    """How often a view is blurred and solarised; jitter and grey are the same for all."""

    blur: float
    solarise: float = 0.0
    jitter: float = 0.8
    grey: float = 0.2


FIRST, LOCAL, SECOND = (
    ColourAugmentation(blur=1.0),
    ColourAugmentation(blur=0.5),
    ColourAugmentation(blur=0.1, solarise=0.2),
)


class ThreeViews(TaggedViews):
    """Two views of a random window of a photograph, and one of another part of it, with the photograph's tags."""

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """`image` and `local` (3, crop, crop), `boxes` (4,) int64, `second` (3, crop, crop), `tags` (classes,), `id`.

        `image` and `local` show the same window in other colours; `boxes` is the part of it that is photograph, as
        first row, end of rows, first column, end of columns. Tags are the whole photograph's.

        Source: released code of ToCo (`datasets/voc.py`, `datasets/transforms.py`).
        """
        record, crop = self.records[index], self.settings.crop
        photograph = self.read(record)
        scaled = resize_image(photograph, random_size(record.size, self.settings, rng))
        seen, box = random_window(scaled, crop, rng)
        part = resize_image(random_part(photograph, rng), (crop, crop))
        if rng.random() < 0.5:
            part = np.ascontiguousarray(part[:, ::-1])
        views = {
            name: normalise(self.augmented(pixels, how, rng), *self.normalisation)
            for name, pixels, how in (("image", seen, FIRST), ("local", seen, LOCAL), ("second", part, SECOND))
        }
        return views | {"boxes": torch.tensor(box), "tags": self.tags[index], "id": record.id}

    def augmented(self, image: Pixels, how: ColourAugmentation, rng: np.random.Generator) -> Pixels:
        """A view (H, W, 3) in other colours; saturation changes by half of the strength, the hue by a quarter."""
        strength = self.settings.colour_jitter
        if strength and rng.random() < how.jitter:
            image = jittered(image, (strength, strength, strength / 2, strength / 4), rng)
        if rng.random() < how.grey:
            image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
        if rng.random() < how.blur:
            radius = rng.uniform(0.1, 2.0) * self.settings.crop / PUBLISHED_CROP
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), radius), dtype=np.uint8)
        if rng.random() < how.solarise:
            image = np.where(image >= SOLARISE_FROM, 255 - image, image).astype(np.uint8)
        return image


def random_window(image: Pixels, crop: int, rng: np.random.Generator) -> tuple[Pixels, tuple[int, int, int, int]]:
    """A random window (crop, crop, 3) of an image (H, W, 3), black outside it, and the rows and columns inside."""
    (from_y, to_y, height), (from_x, to_x, width) = (window(side, crop, rng) for side in image.shape[:2])
    canvas = np.zeros((crop, crop, 3), dtype=np.uint8)
    inside = image[from_y : from_y + height, from_x : from_x + width]
    canvas[to_y : to_y + height, to_x : to_x + width] = inside
    return canvas, (to_y, to_y + height, to_x, to_x + width)


def random_part(
    image: Pixels, rng: np.random.Generator, least: float = 0.4, ratio: float = 4 / 3, attempts: int = 10
) -> Pixels:
    """A random rectangle of at least the share `least` of an image's area and of sides up to `ratio`; else all of it.

    Source: torchvision's RandomResizedCrop, which ToCo uses.
    """
    height, width = image.shape[:2]
    for _ in range(attempts):
        area = height * width * rng.uniform(least, 1)
        shape = float(np.exp(rng.uniform(-np.log(ratio), np.log(ratio))))
        rows, columns = round((area / shape) ** 0.5), round((area * shape) ** 0.5)
        if 0 < rows <= height and 0 < columns <= width:
            top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
            return image[top : top + rows, left : left + columns]
    return image
