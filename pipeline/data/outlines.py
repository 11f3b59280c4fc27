"""Masks drawn from the outlines of objects, for data sets that have no mask files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.labels import IGNORE


class Outline(NamedTuple):
    """One object of a photograph.

    Attributes:
        label: of its class, from 1.
        runs: its pixels, as COCO's compressed run lengths.
        crowd: it is a group whose members nobody has told apart.
    """

    label: int
    runs: bytes
    crowd: bool = False


def draw(outlines: Sequence[Outline], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The mask (H, W) of a photograph.

    Crowds are 255 (void) where no object lies. Where objects overlap, the one of fewer pixels wins, and of equal ones
    the first: a small object in front of a large one is never lost. 0 is background.

    Args:
        outlines: of all objects.
        size: height and width that their run lengths are made for.

    Source: coco2voc, which the released code of ToCo names for its masks, draws the smaller object above likewise.
    """
    from pycocotools import mask

    def depth(outline: Outline) -> tuple[bool, int]:
        return outline.crowd, int(mask.area({"size": list(size), "counts": outline.runs}))

    labels = np.zeros(size, dtype=np.uint8)
    nearest_first = sorted(outlines, key=depth)
    for outline in nearest_first[::-1]:
        pixels = mask.decode({"size": list(size), "counts": outline.runs}).astype(bool)
        labels[pixels] = IGNORE if outline.crowd else outline.label
    return labels
