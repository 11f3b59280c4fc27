"""Knobs of the dual branch, beside those of ToCo. "The paper" is doi:10.19651/j.cnki.emt.2416644."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.knobs import (
    WEIGHTS,
    Index,
    MethodKnobs,
    Name,
    NonNegative,
    Number,
    OneOf,
    Positive,
    Rates,
    Share,
    knob,
)
from models.registry import BACKBONES

TrunkStage = Annotated[int, Field(ge=0, le=4), Number]
PAPER = "dual branch (published)"
RATES = Rates(lr=0.001, head_lr_factor=10.0, momentum=0.9, weight_decay=0.0001, poly_power=0.9)


class GaussianKnobs(MethodKnobs):
    """The function that turns activations into gates: a bell around their own mean, as wide as their own deviation."""

    gaussian: Literal["peak1", "pdf", "stdnormal"] = knob(
        "peak1",
        "height of the bell: peak1 (1: gates do not change when activations are scaled or shifted), stdnormal "
        "(1 / sqrt(2 pi), the paper's words), pdf (a density, exceeds 1 for small deviations; released code of AMR)",
        "reconstructed",
    )
    statistics: Literal["sample", "batch"] = knob(
        "sample", "mean and deviation of each sample, or of the batch (released code of AMR)", "reconstructed"
    )
    unbiased: bool = knob(False, "true: deviations divide by one less than the count (released code of AMR)", PAPER)
    detach: bool = knob(True, "true: no gradient through mean and deviation", "AMR (released)")
    gate_scale: Positive = knob(
        1.0, "factor of every gate; with peak1, sqrt(2) makes it 1 on average for normally distributed activations"
    )


class ModulationKnobs(GaussianKnobs):
    """Gates on features, for each channel and for each place."""

    channel: bool = knob(True, "true: a gate for each channel", PAPER)
    spatial: bool = knob(True, "true: a gate for each place", PAPER)
    combine: Literal["serial", "parallel"] = knob(
        "serial", "serial: the channel gate first; parallel: both gates from the same features", PAPER
    )
    merge: Literal["mean", "sum", "product"] = knob("mean", "how parallel gates join", "reconstructed")
    reduction: Index = knob(
        16, "the channel gate's inner layer is so many times narrower; 0: a single layer", "AMR (released)"
    )
    normalise: bool = knob(True, "true: batch normalisation in front of the spatial Gaussian", "AMR (released)")
    residual: bool = knob(False, "true: gated features are added to the features", PAPER)


class ConsistencyKnobs(MethodKnobs):
    """How the maps of the two branches are drawn together."""

    consistency_norm: Literal[1, 2] = knob(1, "1 (absolute), 2 (squared differences)", PAPER)
    consistency_spread: bool = knob(
        True, "true: every map is stretched to 0 ... 1 first, since raw maps have different scales", "reconstructed"
    )
    stop_gradient: Literal["none", "transformer", "convolution"] = knob(
        "none", "whose maps stay where they are: none (both move), transformer, convolution", PAPER
    )


class DualBranchKnobs(ModulationKnobs, ConsistencyKnobs):
    """The convolutional classifier beside the transformer: its modulation, and how their maps are drawn together."""

    backbone: Annotated[str, OneOf(BACKBONES)] = knob("resnet50", "trunk of the convolutional classifier", PAPER)
    weights: Name = knob("imagenet", WEIGHTS)
    stages: Annotated[list[TrunkStage], Field(max_length=4)] = knob(
        [1, 2, 3],
        "stages of the trunk that are modulated, from 0; 1, 2, 3 are the first residual ones of ResNet-50",
        PAPER,
    )
    consistency_weights: Annotated[list[NonNegative], Field(min_length=2, max_length=2)] = knob(
        [0.1, 0.1], "weights of the distance to the maps of the earlier and of the last block", PAPER
    )
    consistency_start: Share = knob(0.0, "share of all steps after which maps are drawn together")
    rates: Rates = knob(RATES, "of an optimiser of its own", "dual branch (published); factor and power as ToCo")
