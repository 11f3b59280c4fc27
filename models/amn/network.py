"""The activation manipulation network (AMN, Lee et al., CVPR 2022): seeds from a network trained on pixel labels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from models.amn.balanced_seed_loss import balanced_seed_loss
from models.amn.conditioning import ConditionedHead
from models.amn.knobs import SeedLossKnobs
from models.build import trunk
from models.localizer import Activations, Localizer
from models.maps import nearest
from models.networks.attention import Observer
from models.networks.backbone import Backbone, StagedBackbone

STEM = ("conv1", "conv_stem", "bn1")


class AmnNetwork(Localizer):
    """A backbone and a head that knows the image's tags; everything learns but the stem.

    ResNet-38 keeps the frozen parts it has everywhere else.

    Attributes:
        head: the new layers, which learn faster.
        stride: input pixels per cell of the logits; 16, on ResNet-38 8.

    Source: Lee et al., CVPR 2022 (`published`); frozen parts and head of the `released` code.
    """

    fusion = "scores"

    def __init__(self, backbone: str, classes: int) -> None:
        super().__init__()
        own: Backbone = trunk(backbone)
        self.backbone, self.stride = own, own.strides[-1]
        self.head = ConditionedHead("aspp", own.channels[-1], classes)
        if isinstance(own, StagedBackbone):
            own.frozen_stages = 0
            for name, part in own.named_children():
                part.requires_grad_(name not in STEM)

    def forward(self, images: Tensor, tags: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) and tags (B, classes) to logits (B, 1+classes, ~H / stride, ~W / stride)."""
        return self.head(self.backbone(images)[-1], tags)

    def loss(self, logits: Tensor, labels: Tensor, knobs: SeedLossKnobs) -> tuple[Tensor, dict[str, Tensor]]:
        """The balanced seed loss of labels (B, H, W; 0, 1..C, 255) taken at the logits' grid, and its two sides."""
        terms = balanced_seed_loss(logits, nearest(labels, logits.shape[-2:]), knobs)
        return terms.total, {"background": terms.bg, "foreground": terms.fg}

    def activations(self, images: Tensor, tags: Tensor, observers: Sequence[Observer] = ()) -> Activations:
        """Logits of normalised images (B, 3, H, W) with tags (B, classes); observers have nothing to see."""
        logits = self(images, tags)
        return Activations(logits[:, 1:], logits[:, 0])
