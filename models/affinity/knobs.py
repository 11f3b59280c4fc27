"""Knobs of the learned pairwise affinity."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.knobs import (
    WEIGHTS,
    Augmentation,
    KernelName,
    Knobs,
    Maybe,
    Name,
    NonNegative,
    OneOf,
    Optimisation,
    Radius,
    WorkingSide,
    knob,
)
from models.registry import AFFINITIES, BACKBONES

Reading = Literal["released", "published"]
ConfidentLabels = Literal["alphas", "thresholds"]


class AffinityKnobs(Knobs):
    """The learned pairwise affinity of methods that have one."""

    network: Annotated[str, OneOf(("none", *AFFINITIES))] = knob("none", "which affinity is learned")
    backbone: Annotated[str, OneOf(BACKBONES)] = knob("resnet50", "its trunk; resnet38 for affinitynet alone")
    weights: Name = knob("imagenet", WEIGHTS)
    reading: Reading = knob("released", "loss and distance as in the released code, or as in the paper's text")
    labels: ConfidentLabels = knob(
        "thresholds",
        "how two labellings are made that confident labels agree in: thresholds (constant backgrounds), alphas "
        "(backgrounds (1 - strongest class) to a power, as AffinityNet has them)",
        "IRN, TransCAM (released)",
    )
    confidence_pair: Annotated[list[NonNegative], Field(min_length=2, max_length=2)] = knob(
        [0.3, 0.05],
        "thresholds: of foreground and of background; alphas: of a strong and of a weak background",
        "IRN (released)",
    )
    crf: Annotated[KernelName | None, Maybe] = knob(
        "irn", "kernels of the CRF behind the confident labels, or none", "IRN (released)"
    )
    max_side: WorkingSide = knob(1024, "that CRF works at most at this longer side")
    radius: Radius = knob(10, "pairs of cells nearer than this are learned", "IRN (released, published)")
    optimisation: Optimisation
    augmentation: Augmentation

    @model_validator(mode="after")
    def _crop_on_grid(self) -> AffinityKnobs:
        if self.augmentation.crop % 16:
            raise ValueError(f"affinity.augmentation.crop must be a multiple of 16; got {self.augmentation.crop}")
        return self
