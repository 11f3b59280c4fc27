"""Background-aware activation maps (BAO): the online network's head, the target's pixel labels, the objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from models.classifier import tag_loss
from models.conditioning import ConditionedHead, HeadKind
from models.seed_loss import AMN_FORM, IGNORE, SeedLossForm, seed_loss

_EPSILON = 1e-5


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


def inference_map(activation_map: Tensor, cam: Tensor) -> Tensor:
    """The learned background in front of the foreground CAM: (B, 1+C, h, w) and (B, C, h, w) to (B, 1+C, h, w).

    Source: BAO, section 4.4; `published` = `released`.
    """
    return torch.cat([activation_map[:, :1], cam], 1)


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
    maps = maps / (maps.amax((2, 3), keepdim=True) + _EPSILON)
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
    form: SeedLossForm = AMN_FORM,
) -> BaoLoss:
    """Objective of the online network.

    Args:
        logits: (B, C) foreground logits: convolutional plus transformer logits.
        activation_map: (B, 1+C, h, w) from `BaoHead`.
        labels: (B, h, w) from `target_labels`, on the same grid.
        tags: (B, C) of 0 and 1.
        pixel_weight: weight of the pixel labels' loss.
        form: settings of that loss.

    Source: BAO, eq. 7 and 8 (`published`); weight 1 and the loss's settings are `released`.
    """
    classification = tag_loss(logits, tags)
    pixels = seed_loss(activation_map, labels, form)
    return BaoLoss(classification + pixel_weight * pixels.total, classification, *pixels)
