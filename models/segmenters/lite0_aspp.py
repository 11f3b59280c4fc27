"""EfficientNet-Lite0 with an atrous pyramid: the segmenter of the compact profile."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from models.networks.lite0 import EfficientNetLite0
from models.segmenters.segmenter import Segmenter


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
