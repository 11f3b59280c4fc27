"""Knobs of the report."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from models.knobs import Knobs, Number, knob


class ReportKnobs(Knobs):
    """The HTML page."""

    gallery: Annotated[int, Field(ge=0, le=200), Number] = knob(12, "photographs shown")
