"""Expansion and shrinkage of localization (ESOL, Li et al., NeurIPS 2022): two samplers on a frozen classifier.

Two stages, the order of the samplers and what gradients reach are `published` (abstract and figure); no code was ever
released, and every formula and constant here is `reconstructed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

from models.cam.classifier import CamClassifier, tag_loss
from models.esol.sampling import Sampler, SamplingForm, clip_features
from models.localizer import Activations, Localizer
from models.networks.attention import Observer
from models.networks.backbones import Backbone
from models.networks.conformer import Conformer
from models.registry import build_classifier

Stage = Literal["expansion", "shrinkage"]
STAGES: tuple[Stage, ...] = ("expansion", "shrinkage")
_EPSILON = 1e-5


class StageOutputs(NamedTuple):
    """What one forward pass gives the objective of a stage.

    Attributes:
        maps: (B, classes, h, w) of the stage's features, before ReLU; gradients reach its offset branch alone.
        fitted: (B, classes) logits with offsets 0, whose gradients reach the stage's kernel alone; None where the
            kernel does not learn.
    """

    maps: Tensor
    fitted: Tensor | None


class EsolNetwork(Localizer):
    """A trained classifier, frozen, whose features pass an expansion sampler, clipping, and a shrinkage sampler.

    Maps of stage 0 are the classifier's; those of stage 1 come from the expanded, clipped features, those of stage 2
    from what the shrinkage sampler makes of these; all with the classifier's weights.

    Args:
        classifier: description of a convolutional classifier (`classifier_description`).
        form: settings of samplers and clipping, as keyword arguments of `SamplingForm`.

    Attributes:
        base: the classifier, which gives and never learns; its trained weights are loaded here.
        expansion, shrinkage: the samplers.

    Raises:
        ValueError: the classifier has another kind of head, or a setting is out of its range.

    Source: figure of Li et al., NeurIPS 2022 (`published`); that its head stays frozen is `reconstructed`.
    """

    earlier = ("baseline", "expansion")

    def __init__(self, classifier: Mapping[str, Any], form: Mapping[str, Any]) -> None:
        super().__init__()
        base = build_classifier(classifier)
        if not isinstance(base, CamClassifier) or not isinstance(base.backbone, Backbone):
            raise ValueError(f"ESOL needs a convolutional classifier, not {classifier['network']}")
        channels = base.backbone.channels[-1]
        self.base = base.requires_grad_(False)
        self.form, self.stride = SamplingForm(**form), base.stride
        self.expansion, self.shrinkage = Sampler(channels, self.form), Sampler(channels, self.form)

    @property
    def backbone(self) -> Backbone | Conformer:  # type: ignore[override]
        """The classifier's."""
        return self.base.backbone

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but the frozen classifier."""
        super().train(mode)
        self.base.eval()
        return self

    def learning(self, stage: Stage) -> list[str]:
        """Names of the parameters that learn in a stage: its own sampler's, so only its offset branch with Dirac."""
        return [f"{stage}.{name}" for name, _ in self.get_submodule(stage).named_parameters()]

    def learn(self, stage: Stage) -> None:
        """Let the optimiser see the parameters of one stage alone."""
        names = set(self.learning(stage))
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in names)

    def forward(self, images: Tensor, stage: Stage) -> StageOutputs:
        """Normalised images (B, 3, H, W) to what the objective of a stage reads.

        The detach marks of the figure do not rest on `learn`: backbone, first sampler of the second stage, kernels
        and classifier are cut off here, whatever requires a gradient.
        """
        with torch.no_grad():
            features = self.base.backbone(images)[-1]
            if stage == "shrinkage":
                features = self._expanded(features)
        sampler = self.expansion if stage == "expansion" else self.shrinkage
        moved = sampler(features, sampler.offsets(features), fixed=True)
        if sampler.weight is None:
            return StageOutputs(self._maps(self._clipped(moved, stage)), None)
        plain = functional.conv2d(features.to(moved.dtype), sampler.weight, padding=1)
        fitted = self._maps(self._clipped(plain, stage)).mean((2, 3))
        return StageOutputs(self._maps(self._clipped(moved, stage)), fitted)

    def stage_maps(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Raw maps (B, classes, h, w) of stages 0, 1 and 2 from one forward pass of normalised images (B, 3, H, W)."""
        features = self.base.backbone(images)[-1]
        expanded = self._expanded(features)
        shrunk = self.shrinkage(expanded, self.shrinkage.offsets(expanded))
        return self._maps(features), self._maps(expanded), self._maps(shrunk)

    def activations(self, images: Tensor, tags: Tensor, observers: Sequence[Observer] = ()) -> Activations:
        """Raw maps of stage 2, and those of 0 and 1 as earlier ones; tags and observers have nothing to do here."""
        baseline, expansion, shrinkage = self.stage_maps(images)
        return Activations(shrinkage, earlier={"baseline": baseline, "expansion": expansion})

    @torch.no_grad()
    def offsets(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets of both samplers for normalised images (B, 3, H, W), in cells; `sampled_positions` places them."""
        features = self.base.backbone(images)[-1]
        return self.expansion.offsets(features), self.shrinkage.offsets(self._expanded(features))

    def _expanded(self, features: Tensor) -> Tensor:
        return clip_features(self.expansion(features, self.expansion.offsets(features)), self.form)

    def _clipped(self, features: Tensor, stage: Stage) -> Tensor:
        return clip_features(features, self.form) if stage == "expansion" else features

    def _maps(self, features: Tensor) -> Tensor:
        """Class activation maps of features, with the classifier's weights and no gradient for them."""
        return functional.conv2d(features, self.base.head.get_parameter("weight").detach())


# ---------------------------------------------------------------------------------------------------------- objectives


@dataclass(frozen=True)
class EsolLossForm:
    """What the paper's text leaves open about the losses; all `reconstructed`.

    Attributes:
        inverse_weight: weight of the inverse loss of expansion; at least 0.
        inverse_over: `all` terms of the tag loss, or those of the classes that are `present`.
        ceiling: a term that exceeds it pushes no further; above 0. ln 2, about 0.69, is a probability of one half.
        area: what the area loss averages: `max`, maps over their maximum; `sigmoid`, the probability of each cell.
        area_weight: its weight beside the tag loss in shrinkage; at least 0.

    Raises:
        ValueError: a number is out of its range.
    """

    inverse_weight: float = 1.0
    inverse_over: Literal["all", "present"] = "present"
    ceiling: float = 1.0
    area: Literal["max", "sigmoid"] = "max"
    area_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.inverse_weight < 0 or self.area_weight < 0:
            raise ValueError(f"weights must be at least 0, got {self.inverse_weight} and {self.area_weight}")
        if self.ceiling <= 0:
            raise ValueError(f"the ceiling must be above 0, got {self.ceiling}")


def inverse_tag_loss(logits: Tensor, tags: Tensor, form: EsolLossForm) -> Tensor:
    """The negative tag loss, each of whose terms counts up to a ceiling.

    Args:
        logits: (B, classes).
        tags: (B, classes) of 0 and 1.
        form: what is averaged, and the ceiling.

    Returns:
        0-d, in [-ceiling, 0]; 0 where no class is present and only those count.

    Source: `published` that the image-level loss is maximised; its bound is `reconstructed`.
    """
    terms = functional.binary_cross_entropy_with_logits(logits.float(), tags.float(), reduction="none")
    kept = tags if form.inverse_over == "present" else torch.ones_like(tags)
    return -(terms.clamp(max=form.ceiling) * kept).sum() / kept.sum().clamp(min=1)


def area_loss(maps: Tensor, tags: Tensor, form: EsolLossForm) -> Tensor:
    """The share of the grid that the present classes cover, softly counted.

    Args:
        maps: (B, classes, h, w), before ReLU.
        tags: (B, classes) of 0 and 1.
        form: how cells are counted.

    Returns:
        0-d, in [0, 1]: the mean over present classes; 0 without any.

    Source: an area loss is `published`; its formula is `reconstructed`.
    """
    maps = maps.float()
    if form.area == "sigmoid":
        covered = maps.sigmoid()
    else:
        covered = maps.relu() / (maps.relu().amax((2, 3), keepdim=True) + _EPSILON)
    return (covered.mean((2, 3)) * tags).sum() / tags.sum().clamp(min=1)


def esol_loss(
    outputs: StageOutputs, tags: Tensor, stage: Stage, form: EsolLossForm
) -> tuple[Tensor, dict[str, Tensor]]:
    """The objective of a stage, and its terms.

    Expansion maximises the bounded tag loss; shrinkage minimises tag loss and area. A kernel that learns does so
    from the ordinary tag loss in both.

    Args:
        outputs: of the network in that stage.
        tags: (B, classes) of 0 and 1.
        stage: which.
        form: settings.

    Source: `published`; weights and forms `reconstructed`.
    """
    logits = outputs.maps.float().mean((2, 3))
    if stage == "expansion":
        inverse = inverse_tag_loss(logits, tags, form)
        total, terms = form.inverse_weight * inverse, {"inverse": inverse}
    else:
        classification, area = tag_loss(logits, tags), area_loss(outputs.maps, tags, form)
        total, terms = classification + form.area_weight * area, {"tags": classification, "area": area}
    if outputs.fitted is not None:
        fitted = tag_loss(outputs.fitted, tags)
        total, terms = total + fitted, terms | {"kernel": fitted}
    return total, terms
