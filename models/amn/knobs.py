"""Knobs of AMN, and of static labels and their loss, which BAO shares."""

from __future__ import annotations

from typing import Annotated, Literal

from models.knobs import (
    WEIGHTS,
    Fraction,
    KernelName,
    Maybe,
    MethodKnobs,
    Name,
    OneOf,
    Positive,
    Shares,
    WorkingSide,
    knob,
)
from models.registry import BACKBONES


class StaticLabels(MethodKnobs):
    """Pixel labels from the classifier's maps and the CRF, made once."""

    confidence_pair: Shares = knob(
        [0.3, 0.05], "foreground and background threshold of static labels; between them is ignored", "AMN (released)"
    )
    crf: Annotated[KernelName | None, Maybe] = knob(
        "irn", "kernels of the CRF behind static labels, or none", "AMN, TransCAM (released)"
    )
    max_side: WorkingSide = knob(1024, "that CRF works at most at this longer side")


class SeedLossKnobs(MethodKnobs):
    """The balanced seed loss of pixel labels; the defaults are those of AMN and BAO."""

    label_smoothing: Fraction = knob(0.4, "share of a pixel's target that all labels divide", "AMN, BAO (released)")
    foreground_weight: Positive = knob(
        1.0, "weight of foreground pixels in the balanced loss; background has 1", "AMN, BAO (released)"
    )


class AmnKnobs(StaticLabels, SeedLossKnobs):
    """The activation manipulation network."""

    backbone: Annotated[str, OneOf(BACKBONES)] = knob("resnet50", "trunk", "AMN (released, published)")
    weights: Name = knob("imagenet", WEIGHTS)

    @property
    def map_scales(self) -> Literal["none", "one", "all"]:
        """Labels come from maps at all scales."""
        return "all"
