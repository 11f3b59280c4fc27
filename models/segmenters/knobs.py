"""Knobs of the segmentation network: how it learns, and how it predicts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from models.knobs import (
    WEIGHTS,
    Augmentation,
    Count,
    KernelName,
    Knobs,
    Maybe,
    Name,
    OneOf,
    Optimisation,
    Scales,
    Side,
    WorkingSide,
    knob,
)
from models.registry import SEGMENTERS

LossName = Literal["cross_entropy", "balanced"]


def _in_library(name: str) -> str:
    """The library is loaded only where one of its networks is named."""
    from models.segmenters.smp import check

    _, decoder, encoder = name.split(":")
    check(decoder, encoder)
    return name


SmpName = Annotated[
    str,
    Field(pattern=r"^smp:[a-z0-9]+:[\w.-]+$", max_length=100, examples=["smp:deeplabv3plus:resnet101"]),
    AfterValidator(_in_library),
]
"""A decoder and an encoder of segmentation_models_pytorch."""


class SegmenterKnobs(Knobs):
    """The network trained on pseudo masks."""

    network: Annotated[str, OneOf((*SEGMENTERS, "localizer"))] | SmpName = knob(
        "deeplabv2_resnet101",
        "which network; localizer: the decoder that a one-stage method has trained already; smp:<decoder>:<encoder>: "
        "one of segmentation_models_pytorch",
    )
    weights: Name = knob("imagenet", f"{WEIGHTS}; coco stands in presets whose paper starts from such a file")
    loss: LossName = knob(
        "cross_entropy", "cross_entropy (mean over pixels), balanced (mean over background plus mean over foreground)"
    )
    optimisation: Optimisation
    augmentation: Augmentation


class PredictKnobs(Knobs):
    """How the trained network predicts."""

    long_side: Annotated[Side | None, Maybe] = knob(None, "longer side at scale 1; none: the photograph's own")
    square: bool = knob(False, "true: views are squares, as ToCo has them on COCO")
    scales: Scales = knob([0.75, 1.0, 1.25], "scales whose predictions are merged")
    flip: bool = knob(True, "true: each scale is joined by its mirror image")
    fusion: Literal["mean", "logits", "max", "toco", "toco_coco"] = knob(
        "mean",
        "of scales and mirror images: mean (of probabilities), logits (their mean, then softmax: DeepLab-v1 on "
        "ResNet-38, released), max (largest probability of the scales: MCTformer, released), toco (largest logits of "
        "the scales, each the sum of both mirror images: ToCo, released, VOC), toco_coco (the sum of logits of the "
        "scales, each the largest of both mirror images: ToCo, released, COCO)",
    )
    crf: Annotated[KernelName | None, Maybe] = knob(None, "kernels of the CRF on predictions, or none")
    max_side: WorkingSide = knob(1024, "the CRF works at most at this longer side; masks have the photograph's size")
    crf_iterations: Annotated[Count | None, Maybe] = knob(None, "of that CRF; none: as the kernels' paper has them")
