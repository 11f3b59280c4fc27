"""Knobs of ESOL: all `reconstructed`, since neither the paper's text nor any code says."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from models.knobs import MethodKnobs, NonNegative, Positive, knob

SOURCE = "reconstructed"


class SamplingKnobs(MethodKnobs):
    """Samplers and clipping."""

    kernel: Literal["dirac", "trained"] = knob(
        "dirac",
        "weights of the deformable convolutions: dirac passes on the feature that the centre tap reads; trained is a "
        "dense 3 x 3 kernel that starts there and learns from the tag loss",
        SOURCE,
    )
    reach: Positive = knob(0.5, "cells that a tap moves at most along each axis", SOURCE)
    clip: Literal["none", "const", "maxfrac", "quantile"] = knob(
        "quantile",
        "upper bound of expanded features: none, const (clip_level itself), maxfrac and quantile (that share of the "
        "maximum, or that quantile, of each channel of each image over its cells)",
        SOURCE,
    )
    clip_level: Positive = knob(0.9, "that constant, share or quantile", SOURCE)

    @model_validator(mode="after")
    def _share_where_one_is_meant(self) -> SamplingKnobs:
        if self.clip in ("maxfrac", "quantile") and self.clip_level > 1:
            raise ValueError(f"clip = {self.clip} takes a clip_level of at most 1; got {self.clip_level}")
        return self


class EsolLossKnobs(MethodKnobs):
    """Losses of both samplers."""

    inverse_weight: NonNegative = knob(1.0, "weight of the inverse tag loss of expansion", SOURCE)
    inverse_over: Literal["all", "present"] = knob("present", "its terms: all classes, or those present", SOURCE)
    ceiling: Positive = knob(
        1.0, "terms of the tag loss above this push no further; ln 2, about 0.69, is a probability of one half", SOURCE
    )
    area: Literal["max", "sigmoid"] = knob(
        "max", "what the area loss averages: max (maps over their maximum), sigmoid (probability of each cell)", SOURCE
    )
    area_weight: NonNegative = knob(1.0, "weight of the area loss of shrinkage beside the tag loss", SOURCE)


class EsolKnobs(SamplingKnobs, EsolLossKnobs):
    """Expansion and shrinkage of localization: samplers on a frozen classifier, and their losses."""
