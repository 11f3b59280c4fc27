"""Knobs of make_masks, and what it is told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.knobs import (
    Count,
    CrfReference,
    KernelName,
    Knobs,
    Maybe,
    Name,
    Number,
    OneOf,
    Share,
    Shares,
    WorkingSide,
    knob,
)
from pipeline.data.outside import OutsideFiles
from pipeline.maps.background_rules import NOWHERE, RULES

BackgroundThreshold = Annotated[Share | Annotated[str, OneOf(RULES)] | None, Maybe]
"""A constant, a rule that finds one, or none: 1 - the strongest class competes."""
ToldThreshold = Annotated[Share | Annotated[str, OneOf((*RULES, NOWHERE))] | None, Maybe]
"""What stages are told: any of these, or that there is no background."""


class MasksKnobs(Knobs):
    """From maps to pseudo masks."""

    source: Literal["maps", "truth", "import"] = knob(
        "maps",
        "maps (pseudo masks), import (masks of other programs, in `folder`), truth (the ground-truth masks of the "
        "training photographs: full supervision)",
    )
    folder: Annotated[Name | None, Maybe] = knob(
        None, "import: the folder of the masks, <id>.png for each training photograph, indexed or grey, 255 is ignored"
    )
    crf: Annotated[KernelName | None, Maybe] = knob("irn", "kernels of the dense CRF, or none", "IRN (released)")
    crf_unary: Literal["labels", "softmax"] = knob(
        "labels",
        "labels (hard labels at 0.7 confidence), softmax (the maps as probabilities)",
        "IRN, AMN, TransCAM (released)",
    )
    crf_iterations: Annotated[Count | None, Maybe] = knob(None, "of the CRF; none: as the kernels' paper has them")
    unary_labels: Annotated[Annotated[int, Field(ge=2), Number] | None, Maybe] = knob(
        None,
        "labels that share the remaining 0.3; none: background and the image's classes",
        "IRN, AMN (released)",
    )
    confidence_pair: Annotated[Shares | None, Maybe] = knob(
        None, "none, or foreground and background thresholds: between them is ignored"
    )
    max_side: WorkingSide = knob(1024, "the CRF works at most at this longer side; masks have the photograph's size")
    segments: Annotated[Name | None, Maybe] = knob(
        None,
        "none, or a folder of segments of another tool (as SAM's), <id>.png with a number for each segment and 0 for "
        "none: the label that prevails in a segment becomes that of all of it",
    )
    segment_share: Annotated[float, Field(gt=0, le=1), Number] = knob(
        0.5, "share of a segment that its prevailing label must have"
    )

    @property
    def by_threshold(self) -> bool:
        """Whether masks are made by a background threshold and the CRF."""
        return self.source == "maps" and self.crf is not None and self.confidence_pair is None

    @model_validator(mode="after")
    def _pair_ordered(self) -> MasksKnobs:
        if self.confidence_pair is not None and self.confidence_pair[0] < self.confidence_pair[1]:
            raise ValueError(
                f"confidence_pair is foreground, background with foreground >= background; got {self.confidence_pair}"
            )
        return self


class MaskRules(MasksKnobs):
    """All that masks are made by but the background threshold."""

    crf_reference: CrfReference = None
    saliency: OutsideFiles | None = None
    segment_files: OutsideFiles | None = None

    def check_unchanged(self) -> None:
        """Compare the files from outside that masks are made with to those that `configure` saw.

        Raises:
            UserError: they are others.
        """
        for knob_name, files in (("data.saliency", self.saliency), ("masks.segments", self.segment_files)):
            if files is not None:
                files.check_unchanged(knob_name)
