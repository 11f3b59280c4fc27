"""Background rules that read no mask: a threshold from the values of the maps, or from the photograph's colours.

A rule gives every threshold a merit, and the threshold of the highest merit is taken. Rules see the map of the
strongest class alone. Those of a data set add up what its photographs show: one threshold holds for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

Pixels = NDArray[np.uint8]
Values = NDArray[np.float32]
Numbers = NDArray[np.float64]

STEPS = 255
THRESHOLDS: Numbers = (np.arange(STEPS) + 0.5) / STEPS
"""Between steps: at threshold k the values of steps 0 to k are background, and those above it foreground."""

LEVELS = 4
"""Of each of red, green and blue: 64 colours."""


def steps(strongest: Values) -> NDArray[np.int64]:
    """Values in [0, 1] as whole steps, flat."""
    return np.round(np.clip(strongest, 0, 1) * STEPS).astype(np.int64).ravel()


def histogram(strongest: Values, _image: Pixels | None = None) -> Numbers:
    """How many pixels have each step."""
    return np.bincount(steps(strongest), minlength=STEPS + 1).astype(np.float64)


def highest(merit: Numbers) -> float:
    """The first threshold of the highest merit.

    Where all are alike, none is any good if the merit is 0, and all is background: 1. Otherwise maps have the values 0
    and 1 alone, which every threshold parts alike, and the middle one is taken.
    """
    if merit.max() > merit.min():
        return float(THRESHOLDS[merit.argmax()])
    return float(THRESHOLDS[len(THRESHOLDS) // 2]) if merit.max() > 0 else 1.0


def otsu(counts: Numbers) -> Numbers:
    """Variance between background and foreground values.

    Source: Otsu, IEEE Transactions on Systems, Man, and Cybernetics 9(1), 1979.
    """
    below, weighted = counts.cumsum(), (counts * np.arange(len(counts))).cumsum()
    parts = below * (below[-1] - below)
    distance = weighted * below[-1] - weighted[-1] * below
    return np.divide(distance**2, parts, out=np.zeros_like(parts), where=parts > 0)[:-1]


def entropy(counts: Numbers) -> Numbers:
    """Entropy of the background's values plus that of the foreground's.

    Source: Kapur, Sahoo & Wong, Computer Vision, Graphics, and Image Processing 29, 1985.
    """
    shares = counts / max(counts.sum(), 1)
    below, terms = shares.cumsum(), entr(shares).cumsum()
    above, rest = 1 - below, terms[-1] - terms
    both = (below > 0) & (above > 1e-9)
    behind, ahead = np.where(both, below, 1), np.where(both, above, 1)
    return np.where(both, terms / behind + np.log(behind) + rest / ahead + np.log(ahead), 0)[:-1]


def colours(strongest: Values, image: Pixels) -> Numbers:
    """How much a photograph's labelling tells of its colours, at every threshold: normalised mutual information.

    It is 0 for labellings that are all background or all foreground, and for those that ignore the colours.

    Args:
        strongest: (H, W).
        image: (H, W, 3) uint8.

    Source: mutual information of regions and colours as the merit of a segmentation: Kim et al., IEEE Transactions on
    Image Processing 14(10), 2005; normalised by the mean of both entropies, and its use here, are `reconstructed`.
    """
    palette = LEVELS**3
    names = (image.reshape(-1, 3) // (256 // LEVELS)).astype(np.int64) @ (LEVELS**2, LEVELS, 1)
    joint = np.bincount(steps(strongest) * palette + names, minlength=(STEPS + 1) * palette)
    shares = joint.reshape(STEPS + 1, palette) / joint.sum()
    behind = shares.cumsum(axis=0)[:-1]
    ahead = np.maximum(shares.sum(axis=0) - behind, 0)
    labels = entr(behind.sum(axis=1)) + entr(ahead.sum(axis=1))
    own = entr(shares.sum(axis=0)).sum()
    information = np.maximum(labels + own - entr(behind).sum(axis=1) - entr(ahead).sum(axis=1), 0)
    return np.divide(2 * information, labels + own, out=np.zeros_like(labels), where=labels > 1e-9)


@dataclass(frozen=True)
class SetRule:
    """A rule for a data set.

    Attributes:
        evidence: of one photograph, from its strongest map and its pixels; evidence is added over photographs.
        merit: of every threshold, from the sum.
    """

    evidence: Callable[[Values, Pixels], Numbers]
    merit: Callable[[Numbers], Numbers]


SET_RULES = {
    "colours": SetRule(colours, lambda total: total),
    "entropy": SetRule(histogram, entropy),
}
"""Rules that give one threshold for all photographs, by the names that `bg_thresh` accepts."""

IMAGE_RULES = {"otsu": otsu}
"""Rules that give a threshold for each photograph: the merit from its own histogram."""

RULES = (*IMAGE_RULES, *SET_RULES)

NOWHERE = "nowhere"
"""What stages are told in the place of a threshold where every pixel belongs to a class (`data.background = false`)."""


def image_threshold(rule: str, strongest: Values) -> float:
    """The threshold of one photograph by a rule of `IMAGE_RULES`."""
    return highest(IMAGE_RULES[rule](histogram(strongest)))
