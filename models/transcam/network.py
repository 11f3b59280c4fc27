"""TransCAM: a Conformer whose convolutional activation maps are spread by the attention of its transformer branch.

The network and its maps before that are here; attention is read by the observers of `models.networks.attention`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from models.localizer import AttentionClassifier, Parts
from models.networks.attention import Observer
from models.networks.conformer import CONFORMERS, Conformer, Features


class TransCamOutputs(NamedTuple):
    """All that one pass computes; channel 0 of maps and logits is a background that is never trained.

    Attributes:
        features: maps (B, C, h, w) that the convolutional head reads, and normalised tokens (B, 1 + h * w, dim).
        maps: (B, 1 + classes, h, w) of the convolutional head, raw.
        conv_logits: (B, 1 + classes), the mean of the maps.
        token_logits: (B, 1 + classes) of the class token.
    """

    features: Features
    maps: Tensor
    conv_logits: Tensor
    token_logits: Tensor


class TransCam(AttentionClassifier):
    """Classifier on image tags with maps from its convolutional branch and attention from the other.

    Source: Li et al., JVCIR 2023; the convolutional head is 3x3 with bias and has a background channel (`released`).
    Observers see its transformer blocks as 0 to depth - 1; patch tokens lie on the grid of the maps, row by row.
    """

    backbone: Conformer
    mean, std = Conformer.mean, Conformer.std
    stride, tokens = Conformer.stride, Conformer.tokens
    pad_to = stride

    def __init__(self, size: str, classes: int, drop_path: float = 0.1) -> None:
        """`size`: a key of `CONFORMERS`; `classes`: without background; `drop_path`: see `Conformer`."""
        super().__init__()
        self.backbone = Conformer(CONFORMERS[size], 1 + classes, "cam", drop_path)
        self.depth, self.channels = self.backbone.depth, CONFORMERS[size].channels

    @property
    def head(self) -> nn.ModuleList:  # type: ignore[override]
        """The two layers that no ImageNet checkpoint fills; their parameters stay the backbone's."""
        return nn.ModuleList([self.backbone.conv_cls_head, self.backbone.trans_cls_head])

    def outputs(self, images: Tensor, observers: Sequence[Observer] = ()) -> TransCamOutputs:
        """Normalised images (B, 3, H, W) of any size to everything, on the grid (ceil(H / 16), ceil(W / 16))."""
        features = self.backbone.features(images, observers)
        maps = self.backbone.conv_cls_head(features.maps)
        return TransCamOutputs(
            features, maps, maps.mean(dim=(2, 3)), self.backbone.trans_cls_head(features.tokens[:, 0])
        )

    def parts(self, images: Tensor, observers: Sequence[Observer] = ()) -> Parts:
        """Features, maps and summed logits without the background channel, on the grid (ceil(H / 16), ceil(W / 16))."""
        outputs = self.outputs(images, observers)
        logits = outputs.conv_logits + outputs.token_logits
        return Parts(outputs.features.maps, outputs.maps[:, 1:], logits[:, 1:])
