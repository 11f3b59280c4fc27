"""Knobs of the multi-label classifier on tags."""

from __future__ import annotations

from typing import Annotated

from models.knobs import WEIGHTS, Augmentation, Fraction, Knobs, Name, OneOf, Optimisation, knob
from models.registry import CLASSIFIERS

ClassifierName = Annotated[str, OneOf(("none", *CLASSIFIERS))]


class ClassifierKnobs(Knobs):
    """The multi-label classifier on tags, whose last layer gives class activation maps."""

    network: ClassifierName = knob(
        "resnet50", "trunk of the classifier; none: the method trains all at once; conformer_tiny is for tests"
    )
    weights: Name = knob("imagenet", WEIGHTS)
    dropout: Fraction = knob(
        0.0, "share dropped in training: pooled channels, or blocks of a Conformer (drop path)", "IRN (released)"
    )
    optimisation: Optimisation
    augmentation: Augmentation
