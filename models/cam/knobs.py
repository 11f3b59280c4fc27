"""Knobs of the multi-label classifier on tags."""

from __future__ import annotations

from typing import Annotated

from models.knobs import WEIGHTS, Augmentation, Count, Fraction, Knobs, Maybe, Name, OneOf, Optimisation, knob
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
    head_width: Annotated[Count | None, Maybe] = knob(
        None,
        "channels of a 3 x 3 convolution before the last layer (512 in AffinityNet's paper); none: no such layer",
    )
    optimisation: Optimisation
    augmentation: Augmentation
