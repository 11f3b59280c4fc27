"""Training views of photographs and masks: resize, mirror, crop; random draws come from the caller's generator."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional

from models.knobs import Augmentation
from models.labels import IGNORE
from pipeline.data.images import resize_image, resize_labels, scaled_size


def normalise(image: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """RGB (H, W, 3) uint8 to a float32 tensor (3, H, W) with the network's mean and standard deviation."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float().div_(255)
    return functional.normalize(pixels, list(mean), list(std), inplace=True)


def random_view(
    image: NDArray[np.uint8],
    labels: NDArray[np.uint8] | None,
    settings: Augmentation,
    normalisation: tuple[tuple[float, ...], tuple[float, ...]],
    rng: np.random.Generator,
    whole: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """A random training view.

    The photograph gets a random size, the image is mirrored half of the time, its colours are jittered where
    the settings say so, and a random window of the crop size is cut; what lies outside the image is 0 after
    normalisation (the mean colour) and 255 in the labels.

    Args:
        image: (H, W, 3) uint8.
        labels: (H, W) uint8, or None.
        settings: range of sizes, strength of the jitter, and the crop.
        normalisation: mean and standard deviation.
        rng: where the draws come from.
        whole: height and width of the photograph where it was decoded at a smaller size; None: those of the image.

    Returns:
        Image (3, crop, crop) float32, labels (crop, crop) int64 (all 255 where none were given).

    Source: released code of IRN (`step/train_cam.py`, `misc/imutils.py`).
    """
    size = random_size(whole or (image.shape[0], image.shape[1]), settings, rng)
    strength = settings.colour_jitter
    image = resize_image(image, size)
    if strength:
        image = jittered(image, (strength, strength, strength, strength / 3), rng)
    pixels = normalise(image, *normalisation)
    targets = torch.full(size, IGNORE, dtype=torch.uint8)
    if labels is not None:
        targets = torch.from_numpy(resize_labels(labels, size).copy())
    if rng.random() < 0.5:
        pixels, targets = pixels.flip(2), targets.flip(1)
    crop = settings.crop
    view, view_labels = torch.zeros(3, crop, crop), torch.full((crop, crop), IGNORE, dtype=torch.int64)
    (from_y, to_y, height), (from_x, to_x, width) = (window(side, crop, rng) for side in size)
    view[:, to_y : to_y + height, to_x : to_x + width] = pixels[:, from_y : from_y + height, from_x : from_x + width]
    view_labels[to_y : to_y + height, to_x : to_x + width] = targets[from_y : from_y + height, from_x : from_x + width]
    return view, view_labels


def random_size(size: tuple[int, int], settings: Augmentation, rng: np.random.Generator) -> tuple[int, int]:
    """A photograph's height and width after a random change, in pixels of its longer side or as a factor."""
    if settings.long_side is not None:
        low, high = settings.long_side
        return scaled_size(size, int(rng.integers(low, high + 1)))
    smallest, largest = size_range(size, settings)
    if settings.scale_step is None:
        return scaled_size(size, float(rng.uniform(smallest, largest)))
    step = settings.scale_step * max(size)
    return scaled_size(size, smallest + step * int(rng.integers(int((largest - smallest) / step + 1e-9) + 1)))


def size_range(size: tuple[int, int], settings: Augmentation) -> tuple[float, float]:
    """The smallest and largest longer side, in pixels, that a photograph of some size gets in training."""
    pair, unit = (settings.long_side, 1) if settings.long_side is not None else (settings.scale, max(size))
    assert pair is not None, "knobs are refused where neither is set"
    return pair[0] * unit, pair[1] * unit


def jittered(
    image: NDArray[np.uint8], strengths: tuple[float, float, float, float], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Brightness, contrast, saturation and hue changed by up to so much each, in random order.

    Source: released code of PSA and TransCAM (0.3, 0.3, 0.3 and 0.1).
    """
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    changes = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    for number in rng.permutation(len(changes) + 1):
        strength = strengths[number]
        if number < len(changes):
            pixels = changes[number](pixels, float(rng.uniform(1 - strength, 1 + strength)))
        else:
            pixels = functional.adjust_hue(pixels, float(rng.uniform(-strength, strength)))
    return np.asarray(pixels.permute(1, 2, 0).numpy())


def window(side: int, crop: int, rng: np.random.Generator) -> tuple[int, int, int]:
    """Along one axis: where to start in the image, where in the crop, and how many pixels to take."""
    offset = int(rng.integers(0, abs(side - crop) + 1))
    return (offset, 0, crop) if side >= crop else (0, offset, side)
