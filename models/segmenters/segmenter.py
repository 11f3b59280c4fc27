"""What all segmentation networks share: their form, their losses, and how they predict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from models.labels import IGNORE
from models.networks.loading import load_trunk

PixelLoss = Callable[[Tensor, Tensor], Tensor]
"""Logits (B, labels, H, W) float32 and pixel labels (B, H, W) int64 to a loss."""


class Segmenter(nn.Module):
    """What the pipeline relies on: a backbone with ImageNet weights, a head that learns faster, a normalisation.

    In evaluation mode the network gives logits (B, labels, H, W) of normalised images (B, 3, H, W). In training mode it
    gives what its `loss` reads: the same, unless the network says otherwise.
    """

    backbone: nn.Module
    head: nn.Module
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Load initial weights into the backbone; only heads may differ.

        Raises:
            ValueError: listing missing, unexpected and wrongly shaped names.
        """
        load_trunk(self.backbone, state)

    def loss(self, outputs: Any, labels: Tensor, term: PixelLoss) -> Tensor:
        """The loss of what the network gives in training mode, with pixel labels (B, H, W) int64."""
        return term(outputs.float(), labels)


def pixel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy averaged over the pixels that are not 255; 0 where all are.

    Args:
        logits: (B, labels, H, W).
        labels: (B, H, W) int64.
    """
    total = functional.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def balanced_pixel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy averaged over background pixels plus that averaged over foreground pixels; 255 is in neither.

    Args:
        logits: (B, labels, H, W).
        labels: (B, H, W) int64.

    Source: Lee et al., CVPR 2021 (AdvCAM), name a balanced cross entropy "similar to DSRG" (AdvCAM issue 9): the sum of
    both sides is DSRG's, means over the batch in place of the image are `reconstructed`.
    """
    background, foreground = labels == 0, (labels != 0) & (labels != IGNORE)
    return sum(
        (pixel_loss(logits, labels.masked_fill(~side, IGNORE)) for side in (background, foreground)),
        start=logits.new_zeros(()),
    )
