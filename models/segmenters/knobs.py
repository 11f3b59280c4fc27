"""Knobs of the segmentation network: how it learns, and how it predicts."""

from __future__ import annotations

from typing import Annotated

from models.knobs import (
    WEIGHTS,
    Augmentation,
    KernelName,
    Knobs,
    Maybe,
    Name,
    OneOf,
    Optimisation,
    Scales,
    Side,
    knob,
)
from models.registry import SEGMENTERS


class SegmenterKnobs(Knobs):
    """The network trained on pseudo masks."""

    network: Annotated[str, OneOf((*SEGMENTERS, "localizer"))] = knob(
        "deeplabv3_resnet101", "which network; localizer: the decoder that a one-stage method has trained already"
    )
    weights: Name = knob("imagenet", WEIGHTS)
    optimisation: Optimisation
    augmentation: Augmentation


class PredictKnobs(Knobs):
    """How the trained network predicts."""

    long_side: Annotated[Side | None, Maybe] = knob(None, "longer side at scale 1; none: the photograph's own")
    scales: Scales = knob([0.75, 1.0, 1.25], "scales whose probabilities are averaged; each with its mirror image")
    crf: Annotated[KernelName | None, Maybe] = knob(None, "kernels of the CRF on predictions, or none")
