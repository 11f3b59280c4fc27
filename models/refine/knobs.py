"""Knobs of the rules that refine the CAM store's maps."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.knobs import Count, Dilations, Knobs, Maybe, Number, Positive, Radius, Share, Side, knob

NEEDS = {"psa_walk": "affinitynet", "irn_walk": "irn"}
"""The choice of `affinity.network` that a rule walks on; other rules need none."""


class RefineKnobs(Knobs):
    """The propagation rule that runs on the CAM store."""

    rule: Literal["none", "psa_walk", "irn_walk", "par"] = knob(
        "none", "none, psa_walk (on affinitynet), irn_walk (on irn), par (colours of the photograph)"
    )
    long_side: Annotated[Side | None, Maybe] = knob(
        None, "longer side of the view that the affinity network or par sees; none: the photograph's own"
    )
    radius: Radius = knob(5, "cells nearer than this are neighbours of the walk", "PSA, IRN (released, published)")
    border: Literal["psa", "full"] = knob(
        "full", "psa: no pairs that start near three of the borders (released PSA); full: all pairs"
    )
    beta: Positive = knob(10.0, "power of the affinities; higher keeps the walk nearer", "IRN (released, published)")
    log2_steps: Annotated[int, Field(ge=0, le=14), Number] = knob(
        8, "the walk has two to this power steps", "PSA, IRN (released, published)"
    )
    power: Positive = knob(
        1.0, "irn_walk: maps to this power walk; above 1, weak activation counts less", "IRN (released)"
    )
    alpha: Positive = knob(16.0, "psa_walk: background is (1 - strongest class) to this power", "PSA (released)")
    background: Annotated[Share | None, Maybe] = knob(
        None, "psa_walk: a constant background in its place (TransCAM, released); none: alpha says it"
    )
    tolerance: Annotated[float, Field(gt=0, lt=1), Number] = knob(
        0.000001, "largest error of the series that replaces the steps"
    )
    iterations: Count = knob(
        10, "par: how often maps are passed on to similar neighbours", "ToCo, AFA on VOC (released)"
    )
    dilations: Dilations = knob(
        [1, 2, 4, 8, 12, 24], "par: distances of these neighbours in pixels of the view", "ToCo, AFA (released)"
    )
    batch: Count = knob(4, "photographs of equal size that are refined together")
