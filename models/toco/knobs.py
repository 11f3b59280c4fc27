"""Knobs of token contrast."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.knobs import (
    WEIGHTS,
    Augmentation,
    Count,
    Dilations,
    Maybe,
    MethodKnobs,
    Name,
    NonNegative,
    Number,
    OneOf,
    Optimisation,
    Positive,
    Scales,
    Share,
    Shares,
    knob,
)
from models.registry import ENCODERS

Compat = Literal["absolute_pairs", "extra_term", "pixel_boxes", "flip_bug"]


class TocoKnobs(MethodKnobs):
    """Token contrast: the one-stage training of a transformer with a decoder. Defaults are those on VOC."""

    backbone: Annotated[str, OneOf(ENCODERS)] = knob(
        "vit_base", "the transformer; vit_test is for tests", "ToCo (released, published)"
    )
    weights: Name = knob("imagenet", WEIGHTS)
    decoder_width: Count = knob(512, "channels inside the decoder", "ToCo (released)")
    scales: Scales = knob(
        [1.0, 0.5, 1.5],
        "scales of the maps that give labels while training; each with its mirror image",
        "ToCo (released)",
    )
    crop: Annotated[int, Field(ge=8), Number] = knob(96, "side of the local views", "ToCo (released, published)")
    crops: Count = knob(8, "local views of each photograph", "ToCo (released)")
    temperature: Positive = knob(0.5, "of class token contrast; 1 in the released COCO script", "ToCo (released)")
    low: Share = knob(0.25, "background up to this score", "ToCo (released, published)")
    high: Shares = knob(
        [0.7, 0.7],
        "class above this score: first and last threshold, along half a cosine",
        "ToCo (released, published)",
    )
    high_of_classes: Annotated[list[Share] | None, Maybe] = knob(
        None, "last thresholds of each class, in their place; an image takes its highest (DuPL); none: one for all"
    )
    high_moves: list[Literal["regions", "pairs", "masks"]] = knob(
        ["regions", "pairs", "masks"],
        "where the threshold moves: regions (of local views), pairs (of tokens), masks (of the decoder)",
    )
    final_labels_start: Share = knob(
        0.0,
        "share of all steps after which the last block's maps label the decoder's masks; before, those of the earlier "
        "block do; 1: always those",
        "ToCo (released)",
    )
    ptc_weight: NonNegative = knob(0.2, "weight of patch token contrast; 0: off", "ToCo (released, published)")
    ctc_weight: NonNegative = knob(0.5, "weight of class token contrast; 0: off", "ToCo (released, published)")
    mask_weight: NonNegative = knob(0.1, "weight of the decoder's loss", "ToCo (released, published)")
    contrast_start: Share = knob(0.0, "share of all steps after which both contrasts count", "ToCo (released)")
    mask_start: Share = knob(
        0.1, "share of all steps after which the decoder learns", "ToCo (released): 2,000 of 20,000 steps"
    )
    dilations: Dilations = knob(
        [1, 2, 4, 8, 12, 24],
        "distances in pixels at which the masks' refinement compares colours (PAR), at half of the crop",
        "ToCo (released)",
    )
    compat: list[Compat] = knob([], "defects of the released code to reproduce")

    @model_validator(mode="after")
    def _thresholds_ordered(self) -> TocoKnobs:
        ends = [*self.high, *(self.high_of_classes or [])]
        if min(ends) < self.low:
            raise ValueError(f"low is at most every high threshold; got low {self.low}, high {ends}")
        return self

    def check_training(self, optimisation: Optimisation, augmentation: Augmentation) -> None:
        """A crop must have room for the local views.

        Raises:
            ValueError: it has none.
        """
        side = augmentation.crop
        places = max(side - self.crop // 2 * 2, 0) ** 2  # of their centres
        if self.crop > side or places < self.crops:
            raise ValueError(
                f"localizer.toco.crop = {self.crop} leaves no room for localizer.toco.crops = {self.crops} in "
                f"localizer.augmentation.crop = {side}; lower it"
            )
