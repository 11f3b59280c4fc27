"""What all segmentation networks share: their form, their loss, and how they predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.labels import IGNORE
from models.networks.loading import load_trunk


class Segmenter(nn.Module):
    """What the pipeline relies on: a backbone with ImageNet weights, a head that learns faster, a normalisation."""

    backbone: nn.Module
    head: nn.Module
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Load ImageNet weights into the backbone; only heads may differ.

        Raises:
            ValueError: listing missing, unexpected and wrongly shaped names.
        """
        load_trunk(self.backbone, state)


def pixel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy averaged over the pixels that are not 255; 0 where all are.

    Args:
        logits: (B, labels, H, W).
        labels: (B, H, W) int64.
    """
    total = functional.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


@torch.inference_mode()
def predict(network: nn.Module, views: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Mean softmax over several scales, each with its mirror image.

    Args:
        network: images (2, 3, h, w) to logits (2, labels, h, w).
        views: one normalised image (3, h, w) per scale.
        size: height and width of the result.

    Returns:
        Probabilities (labels, H, W) on the views' device.
    """
    total = torch.zeros((), device=views[0].device)
    for view in views:
        probabilities = network(torch.stack([view, view.flip(2)])).float().softmax(1)
        merged = (probabilities[:1] + probabilities[1:].flip(3)) / (2 * len(views))
        total = total + functional.interpolate(merged, size, mode="bilinear", align_corners=False)[0]
    return total
