"""Background-aware activation maps (BAO): the online network's head, the target's pixel labels, the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from models.amn.balanced_seed_loss import balanced_seed_loss
from models.amn.conditioning import ConditionedHead, HeadKind
from models.amn.knobs import SeedLossKnobs
from models.build import build
from models.cam.classifier import tag_loss
from models.labels import IGNORE
from models.localizer import Activations, AttentionClassifier, Localizer
from models.maps import EPSILON
from models.networks.attention import AttentionCoupling, Observer
from models.networks.backbone import Backbone
from models.networks.conformer import Conformer


class BaoHead(nn.Module):
    """Activation map: a conditioned head whose maps the network's own attention spreads.

    Args:
        channels: channels of the last convolutional features; 1024 in Conformer-S.
        classes: foreground classes.
        kind: layer behind the conditioning; `conv3x3` is `released`.

    Source: BAO, section 4.2 (`published`); layers and initialisation of the `released` code.
    """

    def __init__(self, channels: int, classes: int, kind: HeadKind = "conv3x3") -> None:
        super().__init__()
        self.maps = ConditionedHead(kind, channels, classes)
        gate = self.maps.condition.gate
        nn.init.trunc_normal_(gate.weight, std=0.02)
        nn.init.zeros_(gate.bias)

    def forward(self, features: Tensor, tags: Tensor, couple: Callable[[Tensor], Tensor]) -> Tensor:
        """The activation map AM = A* G.

        Args:
            features: (B, channels, h, w), F.
            tags: (B, classes) of 0 and 1.
            couple: applies the attention A* of the same forward pass to maps (B, C, h*w), such as
                `AttentionCoupling.couple` or `AttentionSum.couple`. In the released code gradients flow into the
                attention; for a detached one let the observer detach queries and keys.

        Returns:
            Logits (B, 1+classes, h, w), channel 0 the background.
        """
        maps: Tensor = self.maps(features, tags)
        return couple(maps.flatten(2)).view_as(maps)


class BaoOutputs(NamedTuple):
    """What one forward pass gives the loss.

    Attributes:
        logits: (B, classes) of the tags, the sum of both branches'.
        activation_map: (B, 1 + classes, h, w) logits, channel 0 the background.
        cam: (B, classes, h, w) coupled foreground maps, not rectified.
    """

    logits: Tensor
    activation_map: Tensor
    cam: Tensor


class BaoNetwork(Localizer):
    """A trained classifier with attention, and a head whose background map needs no threshold.

    Args:
        classifier: description of the classifier (`classifier_description`).
        kind: layer of the head; see `BaoHead`.

    Source: BAO, figure 3 (`published`); parameter names apart from ours, the `released` network.
    """

    def __init__(self, classifier: Mapping[str, Any], kind: HeadKind = "conv3x3") -> None:
        super().__init__()
        base = build(classifier)
        if not isinstance(base, AttentionClassifier):
            raise ValueError(f"BAO needs a classifier with attention, not {classifier['network']}")
        self.base = base
        self.head = BaoHead(base.channels, classifier["classes"], kind)
        self.stride, self.depth, self.tokens, self.pad_to = base.stride, base.depth, base.tokens, base.pad_to

    @property
    def backbone(self) -> Backbone | Conformer:  # type: ignore[override]
        """The classifier's."""
        return self.base.backbone

    def forward(self, images: Tensor, tags: Tensor) -> BaoOutputs:
        """Normalised images (B, 3, H, W) and tags (B, classes) of 0 and 1 to everything that the loss reads."""
        coupling = AttentionCoupling()
        parts = self.base.parts(images, [coupling])
        activation_map = self.head(parts.features, tags, coupling.couple)
        cam = coupling.couple(parts.maps.flatten(2)).view_as(parts.maps)
        return BaoOutputs(parts.logits, activation_map, cam)

    def activations(self, images: Tensor, tags: Tensor, observers: Sequence[Observer] = ()) -> Activations:
        """Raw foreground maps, for the rule `transcam` to couple, and the learned, coupled background map.

        Source: BAO, section 4.4 (`published`).
        """
        coupling = AttentionCoupling()
        parts = self.base.parts(images, [coupling, *observers])
        activation_map = self.head(parts.features, tags, coupling.couple)
        return Activations(parts.maps, activation_map[:, 0])


@torch.no_grad()
def target_scores(
    cam: Tensor,
    tags: Tensor,
    norm: Literal["max", "minmax"] = "max",
    background: Literal["one_minus_max"] | float = "one_minus_max",
) -> Tensor:
    """What the pixel labels are decided on: normalised class maps behind a background map.

    Args:
        cam: (B, C, h, w) coupled foreground maps of the target network, not rectified.
        tags: (B, C) of 0 and 1.
        norm: after rectification divide each map by its maximum (`released`), or shift its minimum to 0 first.
        background: 1 - the highest class map, or a constant in [0, 1].

    Returns:
        (B, 1+C, h, w) in [0, 1], float32 or wider; 0 for classes that are absent or nowhere positive. Not
        differentiated.

    Raises:
        ValueError: the constant is out of its range.

    Source: BAO, section 4.1 and eq. 6; the normalisation, which the paper leaves open, is `released`.
    """
    cam = cam.to(torch.promote_types(cam.dtype, torch.float32))
    maps = (cam * tags[:, :, None, None]).relu()
    if norm == "minmax":
        maps = maps - maps.amin((2, 3), keepdim=True)
    maps = maps / (maps.amax((2, 3), keepdim=True) + EPSILON)
    if background == "one_minus_max":
        behind = 1 - maps.amax(1, keepdim=True)
    elif 0 <= background <= 1:
        behind = torch.full_like(maps[:, :1], background)
    else:
        raise ValueError(f"a constant background must be in [0, 1], got {background}")
    return torch.cat([behind, maps], 1)


def target_labels(
    cam: Tensor,
    tags: Tensor,
    norm: Literal["max", "minmax"] = "max",
    background: Literal["one_minus_max"] | float = "one_minus_max",
    padding: Tensor | None = None,
) -> Tensor:
    """Pixel labels from the target network's maps: the highest of background and classes, ties to the background.

    With `one_minus_max` a class wins exactly where its map is above 0.5: the rule that does without a threshold is
    the threshold 0.5.

    Args:
        cam: see `target_scores`.
        tags: see `target_scores`.
        norm: see `target_scores`.
        background: see `target_scores`.
        padding: (B, h, w) bool, cells outside the photograph; they become 255. None labels them like content
            (`released`).

    Returns:
        (B, h, w) int64: 0, ids 1..C of present classes, 255 on padding.

    Raises:
        ValueError: see `target_scores`.

    Source: BAO, section 4.1 (`published`); the treatment of padding is `reconstructed`.
    """
    labels = target_scores(cam, tags, norm, background).argmax(1)  # the first of equal scores
    return labels if padding is None else labels.masked_fill(padding, IGNORE)


class BaoLoss(NamedTuple):
    """The weighted sum, the loss of the tags, the loss of the pixel labels and its two sides; 0-d tensors."""

    total: Tensor
    tags: Tensor
    pixels: Tensor
    bg: Tensor
    fg: Tensor


def bao_loss(
    logits: Tensor,
    activation_map: Tensor,
    labels: Tensor,
    tags: Tensor,
    pixel_weight: float = 1.0,
    knobs: SeedLossKnobs = SeedLossKnobs(),
) -> BaoLoss:
    """Loss of the online network.

    Args:
        logits: (B, C) foreground logits: convolutional plus transformer logits.
        activation_map: (B, 1+C, h, w) from `BaoHead`.
        labels: (B, h, w) from `target_labels`, on the same grid.
        tags: (B, C) of 0 and 1.
        pixel_weight: weight of the pixel labels' loss.
        knobs: of that loss.

    Source: BAO, eq. 7 and 8 (`published`); weight 1 and the loss's settings are `released`.
    """
    classification = tag_loss(logits, tags)
    pixels = balanced_seed_loss(activation_map, labels, knobs)
    return BaoLoss(classification + pixel_weight * pixels.total, classification, *pixels)
