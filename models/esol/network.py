"""Expansion and shrinkage of localization (ESOL, Li et al., NeurIPS 2022): two samplers on a frozen classifier.

Two trainings, the order of the samplers and what gradients reach are `published` (abstract and figure). No code was
ever released, and every formula and constant here is `reconstructed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from models.build import build
from models.cam.classifier import CamClassifier, tag_loss
from models.esol.knobs import EsolLossKnobs, SamplingKnobs
from models.esol.sampling import Sampler, clip_features
from models.localizer import Activations, Localizer
from models.maps import EPSILON
from models.networks.attention import Observer
from models.networks.backbone import Backbone
from models.networks.conformer import Conformer

SamplerName = Literal["expansion", "shrinkage"]
SAMPLERS: tuple[SamplerName, ...] = ("expansion", "shrinkage")


class SamplerOutputs(NamedTuple):
    """What one forward pass gives the loss of a sampler.

    Attributes:
        maps: (B, classes, h, w) of the sampler's features, before ReLU; gradients reach its offset branch alone.
        fitted: (B, classes) logits with offsets 0, whose gradients reach the sampler's kernel alone; None where the
            kernel does not learn.
    """

    maps: Tensor
    fitted: Tensor | None


class EsolNetwork(Localizer):
    """A trained classifier, frozen, whose features pass an expansion sampler, clipping, and a shrinkage sampler.

    Baseline maps are the classifier's; expansion maps come from the expanded, clipped features, shrinkage maps
    from what the shrinkage sampler makes of these; all with the classifier's weights.

    Args:
        classifier: description of a convolutional classifier (`classifier_description`).
        form: knobs of samplers and clipping, by name (`SamplingKnobs`).

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
        base = build(classifier)
        if not isinstance(base, CamClassifier) or not isinstance(base.backbone, Backbone):
            raise ValueError(f"ESOL needs a convolutional classifier, not {classifier['network']}")
        channels = base.backbone.channels[-1]
        self.base = base.requires_grad_(False)
        self.knobs, self.stride = SamplingKnobs(**form), base.stride
        self.expansion, self.shrinkage = Sampler(channels, self.knobs), Sampler(channels, self.knobs)

    @property
    def backbone(self) -> Backbone | Conformer:  # type: ignore[override]
        """The classifier's."""
        return self.base.backbone

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but the frozen classifier."""
        super().train(mode)
        self.base.eval()
        return self

    def learning(self, which: SamplerName) -> list[str]:
        """Names of the parameters of a sampler, which learn in its training: with Dirac only its offset branch."""
        return [f"{which}.{name}" for name, _ in self.get_submodule(which).named_parameters()]

    def learn(self, which: SamplerName) -> None:
        """Let the optimiser see the parameters of one sampler alone."""
        names = set(self.learning(which))
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in names)

    def forward(self, images: Tensor, which: SamplerName) -> SamplerOutputs:
        """Normalised images (B, 3, H, W) to what the loss of a sampler reads.

        The detach marks of the figure do not rest on `learn`: backbone, kernels, classifier and, in the second's
        training, the first sampler are cut off here, whatever requires a gradient.
        """
        with torch.no_grad():
            features = self.base.backbone(images)[-1]
            if which == "shrinkage":
                features = self._expanded(features)
        sampler = self.expansion if which == "expansion" else self.shrinkage
        moved = sampler(features, sampler.offsets(features), fixed=True)
        if sampler.weight is None:
            return SamplerOutputs(self._maps(self._clipped(moved, which)), None)
        plain = functional.conv2d(features.to(moved.dtype), sampler.weight, padding=1)
        fitted = self._maps(self._clipped(plain, which)).mean((2, 3))
        return SamplerOutputs(self._maps(self._clipped(moved, which)), fitted)

    def all_maps(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Raw maps (B, classes, h, w) of baseline, expansion and shrinkage of normalised images (B, 3, H, W)."""
        features = self.base.backbone(images)[-1]
        expanded = self._expanded(features)
        shrunk = self.shrinkage(expanded, self.shrinkage.offsets(expanded))
        return self._maps(features), self._maps(expanded), self._maps(shrunk)

    def activations(self, images: Tensor, tags: Tensor, observers: Sequence[Observer] = ()) -> Activations:
        """Raw shrinkage maps, and the others as earlier ones; tags and observers have nothing to do here."""
        baseline, expansion, shrinkage = self.all_maps(images)
        return Activations(shrinkage, earlier={"baseline": baseline, "expansion": expansion})

    @torch.no_grad()
    def offsets(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets of both samplers for normalised images (B, 3, H, W), in cells; `sampled_positions` places them."""
        features = self.base.backbone(images)[-1]
        return self.expansion.offsets(features), self.shrinkage.offsets(self._expanded(features))

    def _expanded(self, features: Tensor) -> Tensor:
        return clip_features(self.expansion(features, self.expansion.offsets(features)), self.knobs)

    def _clipped(self, features: Tensor, which: SamplerName) -> Tensor:
        return clip_features(features, self.knobs) if which == "expansion" else features

    def _maps(self, features: Tensor) -> Tensor:
        """Class activation maps of features, with the classifier's weights and no gradient for them."""
        weights = {name: value.detach() for name, value in self.base.head.named_parameters()}
        maps: Tensor = functional_call(self.base.head, weights, (features,))
        return maps


# -------------------------------------------------------------------------------------------------------------- losses


def inverse_tag_loss(logits: Tensor, tags: Tensor, knobs: EsolLossKnobs) -> Tensor:
    """The negative tag loss, each of whose terms counts up to a ceiling.

    Args:
        logits: (B, classes).
        tags: (B, classes) of 0 and 1.
        knobs: what is averaged, and the ceiling.

    Returns:
        0-d, in [-ceiling, 0]; 0 where no class is present and only those count.

    Source: `published` that the image-level loss is maximised; its bound is `reconstructed`.
    """
    terms = functional.binary_cross_entropy_with_logits(logits.float(), tags.float(), reduction="none")
    kept = tags if knobs.inverse_over == "present" else torch.ones_like(tags)
    return -(terms.clamp(max=knobs.ceiling) * kept).sum() / kept.sum().clamp(min=1)


def area_loss(maps: Tensor, tags: Tensor, knobs: EsolLossKnobs, saliency: Tensor | None = None) -> Tensor:
    """The share of the grid that the present classes cover, softly counted.

    Args:
        maps: (B, classes, h, w), before ReLU.
        tags: (B, classes) of 0 and 1.
        knobs: how cells are counted.
        saliency: (B, H, W) in [0, 1] of the views; a cell counts by how little salient it is, so that shrinkage lets
            go of the background alone.

    Returns:
        0-d, in [0, 1]: the mean over present classes; 0 without any.

    Source: an area loss, and that saliency maps may supervise, are `published`; the formulas are `reconstructed`.
    """
    maps = maps.float()
    if knobs.area == "sigmoid":
        covered = maps.sigmoid()
    else:
        covered = maps.relu() / (maps.relu().amax((2, 3), keepdim=True) + EPSILON)
    if saliency is not None:
        covered = covered * (1 - functional.adaptive_avg_pool2d(saliency[:, None], (maps.shape[2], maps.shape[3])))
    return (covered.mean((2, 3)) * tags).sum() / tags.sum().clamp(min=1)


def esol_loss(
    outputs: SamplerOutputs,
    tags: Tensor,
    which: SamplerName,
    knobs: EsolLossKnobs,
    saliency: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a sampler, and its terms.

    Expansion maximises the bounded tag loss; shrinkage minimises tag loss and area. A kernel that learns does so
    from the ordinary tag loss in both.

    Args:
        outputs: of the network for that sampler.
        tags: (B, classes) of 0 and 1.
        which: the sampler.
        knobs: weights and forms.
        saliency: (B, H, W) in [0, 1] for the area loss, where there are saliency maps.

    Source: `published`; weights and forms `reconstructed`.
    """
    logits = outputs.maps.float().mean((2, 3))
    if which == "expansion":
        inverse = inverse_tag_loss(logits, tags, knobs)
        total, terms = knobs.inverse_weight * inverse, {"inverse": inverse}
    else:
        classification, area = tag_loss(logits, tags), area_loss(outputs.maps, tags, knobs, saliency)
        total, terms = classification + knobs.area_weight * area, {"tags": classification, "area": area}
    if outputs.fitted is not None:
        fitted = tag_loss(outputs.fitted, tags)
        total, terms = total + fitted, terms | {"kernel": fitted}
    return total, terms
