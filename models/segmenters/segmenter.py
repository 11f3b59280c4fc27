"""Segmentation networks that learn from pseudo masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation import deeplabv3_resnet101
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from models.labels import IGNORE
from models.networks.backbones import EfficientNetLite0


class Segmenter(nn.Module):
    """What the pipeline relies on: a backbone with ImageNet weights, a head that learns faster, a normalisation."""

    backbone: nn.Module
    head: nn.Module
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Lite0Aspp(Segmenter):
    """EfficientNet-Lite0 at stride 16 with torchvision's DeepLabV3 head (atrous pyramid 6, 12, 18, image pooling).

    The head starts from the 320 channels before the wide head convolution, which is made for classification.
    """

    def __init__(self, labels: int) -> None:
        super().__init__()
        backbone = EfficientNetLite0()
        backbone.conv_head.requires_grad_(False)
        backbone.bn2.requires_grad_(False)
        self.head = DeepLabHead(backbone.channels[-2], labels, atrous_rates=(6, 12, 18))
        self.backbone, self.mean, self.std = backbone, backbone.mean, backbone.std

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to logits (B, labels, H, W)."""
        logits = self.head(self.backbone(images, count=5)[-1])
        return functional.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False)


class DeepLabV3ResNet101(Segmenter):
    """torchvision's DeepLabV3 on ResNet-101, output stride 8, without the auxiliary head."""

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(self, labels: int) -> None:
        super().__init__()
        # weights_backbone=None: the default would download.
        network = deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=labels, aux_loss=None)
        self.backbone, self.head = network.backbone, network.classifier

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to logits (B, labels, H, W)."""
        logits = self.head(self.backbone(images)["out"])
        return functional.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False)


SEGMENTERS: dict[str, Callable[[int], Segmenter]] = {
    "efficientnet_lite0_aspp": Lite0Aspp,
    "deeplabv3_resnet101": DeepLabV3ResNet101,
}


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
