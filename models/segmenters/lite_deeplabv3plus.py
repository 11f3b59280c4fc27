"""EfficientNet-Lite with a DeepLabV3+ decoder: the segmenter of the compact profile."""

from __future__ import annotations

from typing import Literal

from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder
from torch import Tensor, nn
from torch.nn import functional

from models.networks.lite import EfficientNetLite
from models.segmenters.segmenter import Segmenter

RATES = (6, 12, 18)
WIDTH = 128


class LiteDeepLabV3Plus(Segmenter):
    """EfficientNet-Lite at stride 16, an atrous pyramid, and a decoder with a skip at stride 4.

    The decoder is segmentation_models_pytorch's, with separable convolutions. It starts from the channels before
    the wide head convolution, which is made for classification.

    Source: Chen et al., ECCV 2018 (DeepLabV3+): `published`; the trunk and the width of 128 are the compact profile's.
    """

    def __init__(self, labels: int, size: Literal[0, 2]) -> None:
        super().__init__()
        backbone = EfficientNetLite(size, depth=5)
        channels = (3, *backbone.channels)
        decoder = DeepLabV3PlusDecoder(channels, 5, WIDTH, RATES, 16, aspp_separable=True, aspp_dropout=0.1)
        self.head: nn.ModuleList = nn.ModuleList([decoder, nn.Conv2d(WIDTH, labels, 1)])
        self.backbone, self.mean, self.std = backbone, backbone.mean, backbone.std

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to logits (B, labels, H, W)."""
        height, width = images.shape[2:]
        padded = functional.pad(images, (0, -width % 16, 0, -height % 16))
        features = [padded, *self.backbone(padded)]
        logits = self.head[1](self.head[0](features))
        upsampled = functional.interpolate(logits, padded.shape[2:], mode="bilinear", align_corners=False)
        return upsampled[:, :, :height, :width]


def lite0_deeplabv3plus(labels: int) -> LiteDeepLabV3Plus:
    """On EfficientNet-Lite0."""
    return LiteDeepLabV3Plus(labels, 0)


def lite2_deeplabv3plus(labels: int) -> LiteDeepLabV3Plus:
    """On EfficientNet-Lite2."""
    return LiteDeepLabV3Plus(labels, 2)
