"""Any decoder and encoder of segmentation_models_pytorch: `smp:<decoder>:<encoder>`."""

from __future__ import annotations

from typing import Any

import segmentation_models_pytorch as smp
import timm
from torch import Tensor, nn
from torch.nn import functional

from models.segmenters.segmenter import Segmenter

MULTIPLE = 32
"""Decoders need sides that this number divides."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SmpSegmenter(Segmenter):
    """A decoder on an encoder, both with the library's own defaults.

    Photographs are normalised by ImageNet's mean and deviation; for encoders of timm (`tu-<name>`) as timm says.

    Args:
        decoder: an architecture of the library, such as `unet`.
        encoder: a name of its encoders, such as `resnet34`.
        labels: classes and background.
    """

    def __init__(self, decoder: str, encoder: str, labels: int) -> None:
        super().__init__()
        network = smp.create_model(decoder, encoder, encoder_weights=None, classes=labels)
        self.backbone: nn.Module = network.encoder
        self.head: nn.ModuleList = nn.ModuleList([network.decoder, network.segmentation_head])
        known: Any = timm.get_pretrained_cfg(encoder.removeprefix("tu-")) if encoder.startswith("tu-") else None
        self.mean, self.std = (known.mean, known.std) if known else (MEAN, STD)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to logits (B, labels, H, W)."""
        height, width = images.shape[2:]
        padded = functional.pad(images, (0, -width % MULTIPLE, 0, -height % MULTIPLE))
        logits = self.head[1](self.head[0](self.backbone(padded)))
        return logits[:, :, :height, :width]


def check(decoder: str, encoder: str) -> None:
    """Refuse names that the library does not have.

    Raises:
        ValueError: naming those that it has.
    """
    decoders = sorted(smp.MODEL_ARCHITECTURES_MAPPING)
    if decoder not in decoders:
        raise ValueError(f"segmentation_models_pytorch has no decoder {decoder!r}; it has {', '.join(decoders)}")
    if encoder not in smp.encoders.get_encoder_names() and not timm.is_model(encoder.removeprefix("tu-")):
        raise ValueError(
            f"segmentation_models_pytorch has no encoder {encoder!r}; smp.encoders.get_encoder_names() lists them, and "
            "tu-<name> takes one of timm"
        )
