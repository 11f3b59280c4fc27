"""Results that are no use, said in a sentence with what to try: in the console, in the details, in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.labels import IGNORE

LITTLE_ABOVE_CHANCE = 0.25
"""Of the way from guessing to a perfect tag mAP."""
HARDLY, NEARLY_ALL = 0.005, 0.97
"""Shares of pixels."""
WITHOUT_BACKGROUND = "if every pixel belongs to a class, say so: -S +data.background=false"
LOWER = {
    "masks": "lower bg_thresh, and look at the maps in the report",
    "segmenter": "look at the masks that it learned from, and raise segmenter.optimisation.epochs",
}
RAISE = {"masks": "raise bg_thresh", "segmenter": "look at the masks that it learned from"}
"""What to try where the foreground is too small and too large."""


def said(warnings: Sequence[str]) -> dict[str, list[str]]:
    """Print warnings, and give them as details hold them; nothing where there are none."""
    for warning in warnings:
        print(f"WARNING: {warning}", flush=True)
    return {"warnings": list(warnings)} if warnings else {}


def label_pixels(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(256,) how many pixels of a mask (H, W) have each label."""
    return np.bincount(labels.ravel(), minlength=IGNORE + 1)


def tag_warnings(precision: Mapping[str, float], shown: Mapping[str, float]) -> list[str]:
    """Whether a classifier knows the tags of photographs that it has not seen.

    Args:
        precision: average precision of each class that can be scored.
        shown: share of the photographs that show each class, which is the precision of guessing.
    """
    found = []
    if everywhere := [name for name in precision if shown[name] == 1]:
        found.append(
            f"every validation photograph shows {', '.join(everywhere)}, so its precision of 1 tells nothing; add "
            "photographs without it"
        )
    scored = [name for name in precision if shown[name] < 1]
    if not scored:
        return found
    mean, chance = (float(np.mean([values[name] for name in scored])) for values in (precision, shown))
    if mean - chance < LITTLE_ABOVE_CHANCE * (1 - chance):
        found.append(
            f"the classifier hardly knows the tags (mAP {mean:.2f}, guessing {chance:.2f}), and no map is better than "
            "it; raise classifier.optimisation.epochs, add photographs of the rare classes, or choose fewer with "
            "data.classes"
        )
    return found


def mask_warnings(artefact: str, pixels: NDArray[np.int64], classes: Sequence[str], tagged: int) -> list[str]:
    """Whether masks or predictions show one thing alone.

    Args:
        artefact: masks or segmenter.
        pixels: (256,) how many have each label, over all photographs.
        classes: in label order.
        tagged: how many classes the photographs' tags name.
    """
    names, known = ["background", *classes], pixels.sum() - pixels[IGNORE]
    if not known:
        return [f"{artefact}: every pixel is ignored"]
    shares = pixels[: len(names)] / known
    strongest = int(shares[1:].argmax()) + 1
    if shares[0] == 1:
        return [f"{artefact}: all is background; {LOWER[artefact]}"]
    if shares[0] > 1 - HARDLY:
        return [f"{artefact}: {shares[0]:.1%} of the pixels are background; {LOWER[artefact]}"]
    if tagged > 1 and shares[strongest] / shares[1:].sum() > 1 - HARDLY:
        return [
            f"{artefact}: all foreground is {names[strongest]}, though tags name {tagged} classes; look at the counts "
            "of the classes and at the tag mAP of each"
        ]
    if 0 < shares[0] < 1 - NEARLY_ALL:
        return [
            f"{artefact}: only {shares[0]:.1%} of the pixels are background; {RAISE[artefact]}; {WITHOUT_BACKGROUND}"
        ]
    return []


def truth_warnings(true_foreground: float) -> list[str]:
    """Whether the true masks, whose share of foreground is given, know a background at all."""
    if true_foreground < NEARLY_ALL:
        return []
    return [f"the true masks hold {1 - true_foreground:.1%} background; {WITHOUT_BACKGROUND}"]
