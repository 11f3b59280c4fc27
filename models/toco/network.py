"""The one-stage network of ToCo: a vision transformer, two classifiers of its patch tokens, and a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.build import trunk
from models.localizer import Activations, Localizer
from models.maps import resize
from models.networks.attention import Observer
from models.networks.encoding import Encoding
from models.networks.trunk_encoder import TrunkEncoder
from models.networks.vit import VitEncoder
from models.segmenters.segmenter import Segmenter


class Output(NamedTuple):
    """All that the losses on one view need, from one encoding.

    Attributes:
        encoding: the encoder's output; class activation maps follow from it at almost no cost.
        logits: (B, K) of the classifier on the last block.
        aux_logits: (B, K) of the classifier on the earlier block.
        masks: (B, K + 1, h, w) logits of the decoder.
    """

    encoding: Encoding
    logits: Tensor
    aux_logits: Tensor
    masks: Tensor


class LargeFov(nn.Sequential):
    """Decoder of three convolutions without bias, two of them 3x3 with dilation 5.

    Source: released code of ToCo (`model/decoder/conv_head.py`), after DeepLab-LargeFOV: `released`.
    """

    def __init__(self, dim: int, labels: int, width: int = 512) -> None:
        super().__init__(
            nn.Conv2d(dim, width, 3, padding=5, dilation=5, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=5, dilation=5, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, labels, 1, bias=False),
        )


class ToCoNetwork(Localizer):
    """Encoder, a classifier of its last and one of an earlier block, and a decoder: what remains at inference.

    The heads of class token contrast exist only in training, see `contrast.ContrastHeads`.

    Args:
        encoder: a name in `models.registry.ENCODERS`.
        classes: K, without background.
        width: channels inside the decoder.

    Attributes:
        backbone: the encoder.
        head, aux_head: classifiers of the last and of the earlier block.
        decoder: segments.

    Source: Ru et al., CVPR 2023 (ToCo); details from the released code (`model/model_seg_neg.py`): `released`.
    """

    backbone: VitEncoder | TrunkEncoder
    head: nn.Conv2d
    earlier = ("aux",)

    def __init__(self, encoder: str, classes: int, width: int = 512) -> None:
        super().__init__()
        self.backbone = trunk(encoder)
        dim, self.mean, self.std = self.backbone.dim, self.backbone.mean, self.backbone.std
        self.stride = self.backbone.strides[-1]
        self.head = nn.Conv2d(dim, classes, 1, bias=False)
        self.aux_head = nn.Conv2d(dim, classes, 1, bias=False)
        self.decoder = LargeFov(dim, classes + 1, width)

    def forward(self, images: Tensor) -> Output:
        """Normalised images (B, 3, H, W) to all that the losses on them need, with one encoding."""
        encoding: Encoding = self.backbone(images)
        return Output(encoding, *self.logits(encoding), self.decoder(encoding.final))

    def logits(self, encoding: Encoding) -> tuple[Tensor, Tensor]:
        """Class logits (B, K) of the last and of the earlier block, from the largest value of every channel."""
        maps = (self.head, encoding.final), (self.aux_head, encoding.aux)
        first, second = (head(tokens.amax(dim=(2, 3), keepdim=True)).flatten(1) for head, tokens in maps)
        return first, second

    def cams(self, encoding: Encoding) -> tuple[Tensor, Tensor]:
        """Class activation maps (B, K, h, w) of the last and of the earlier block, before ReLU."""
        return self.head(encoding.final), self.aux_head(encoding.aux)

    def stacked_cams(self, images: Tensor) -> Tensor:
        """Maps (B, 2K, h, w) of images, the last block's first; the decoder does not run."""
        return torch.cat(self.cams(self.backbone(images)), dim=1)

    def activations(self, images: Tensor, tags: Tensor, observers: Sequence[Observer] = ()) -> Activations:
        """Raw maps of normalised images (B, 3, H, W) and those of the earlier block; tags are not looked at."""
        final, aux = self.cams(self.backbone(images))
        return Activations(final, earlier={"aux": aux})

    def segmenter(self) -> ToCoSegmenter:
        """The decoder as a segmentation network."""
        return ToCoSegmenter(self)


class ToCoSegmenter(Segmenter):
    """The decoder that a `ToCoNetwork` trained beside its classifiers, as a segmentation network."""

    def __init__(self, network: ToCoNetwork) -> None:
        super().__init__()
        self.backbone, self.head = network.backbone, network.decoder
        self.mean, self.std = network.mean, network.std

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to logits (B, K + 1, H, W)."""
        encoding: Encoding = self.backbone(images)
        return resize(self.head(encoding.final), images.shape[2:])
