"""Background thresholds: where a pixel belongs to no class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.labels import IGNORE
from pipeline.maps.background_rules import NOWHERE, image_threshold

Maps = NDArray[np.float32]
Labels = NDArray[np.uint8]
Threshold = float | str | None


def power_background(maps: Maps, alpha: float) -> Maps:
    """Put (1 - strongest class) ** alpha in front of the maps (K, H, W); a higher alpha is a weaker background.

    Source: Ahn & Kwak, CVPR 2018, eq. 1.
    """
    background = (1 - maps.max(axis=0, initial=0.0)) ** np.float32(alpha)
    return np.concatenate([background[None], maps]).astype(np.float32)


def with_background(
    maps: Maps, threshold: Threshold, background: Maps | None = None, saliency: Maps | None = None
) -> Maps:
    """Put the background's map in front of the classes' maps.

    Args:
        maps: (K, H, W) in [0, 1].
        threshold: a number: a constant map of that value (PSA, IRN); None: the method's own background map where it has
            one, else 1 - the strongest class (published, BAO eq. 6); a name in `IMAGE_RULES`: a constant per image;
            `NOWHERE`: below every map.
        background: (H, W), the method's own background map.
        saliency: (H, W) in [0, 1]; channel 0 is at least 1 - saliency, which also takes the place of 1 - the strongest
            class (`reconstructed`: papers say that saliency maps tell the background, and differ in how).

    Returns:
        (K + 1, H, W) float32; a pixel is foreground where a class is strictly larger than channel 0.
    """
    strongest = maps.max(axis=0, initial=0.0)
    if threshold == NOWHERE:
        first = np.full_like(strongest, -1)
    elif threshold is None and background is None and saliency is not None:
        first = np.zeros_like(strongest)
    elif threshold is None:
        first = background if background is not None else 1 - strongest
    else:
        constant = image_threshold(threshold, strongest) if isinstance(threshold, str) else threshold
        first = np.full_like(strongest, np.float32(constant))
    if saliency is not None:
        first = np.maximum(first, 1 - saliency)
    return np.concatenate([first[None], maps]).astype(np.float32)


def hard_channels(scores: Maps) -> Labels:
    """The strongest channel of (K + 1, H, W) at each pixel, (H, W) uint8; a tie goes to the lowest channel."""
    return scores.argmax(axis=0).astype(np.uint8)


def labels_of_channels(channels: Labels, class_ids: Sequence[int]) -> Labels:
    """Channels (0 background, k the k-th class, 255 ignored) as mask labels."""
    names = np.full(256, IGNORE, dtype=np.uint8)
    names[: len(class_ids) + 1] = [0, *class_ids]
    return names[channels]


def hard_labels(scores: Maps, class_ids: Sequence[int]) -> Labels:
    """The strongest channel of (K + 1, H, W) as mask labels (H, W)."""
    return labels_of_channels(hard_channels(scores), class_ids)


def confident_channels(strict: Labels, loose: Labels) -> Labels:
    """A class where the strict labelling has one, background where both have it, 255 elsewhere.

    Source: Ahn, Cho & Kwak, CVPR 2019, section 4.2; released code of IRN (`step/cam_to_ir_label.py`).
    """
    return np.where(strict > 0, strict, np.where(loose > 0, IGNORE, 0)).astype(np.uint8)
