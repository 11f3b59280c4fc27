"""DeepLabV3 on ResNet-101, from torchvision."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional
from torchvision.models.segmentation import deeplabv3_resnet101

from models.segmenters.segmenter import Segmenter


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
