"""The multi-label classifier whose last layer gives class activation maps (CAM, Zhou et al., CVPR 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.build import trunk
from models.localizer import Activations, Localizer
from models.networks.attention import Observer
from models.networks.backbone import Backbone


class CamClassifier(Localizer):
    """A backbone, global average pooling, and a 1x1 convolution without bias.

    Pooling and the convolution commute, so the convolution's maps before pooling are the CAMs.
    Source: released code of IRN (`net/resnet50_cam.py`), and of PSA (`network/resnet38_cls.py`) with dropout 0.5.

    Args:
        backbone: a name in `models.registry.BACKBONES`.
        classes: number of foreground classes.
        dropout: share of the channels in front of the last layer that training drops.
        width: channels of a 3 x 3 convolution in front of the last layer. Ahn & Kwak, CVPR 2018, have 512
            (`published`), their code none (`released`); the ReLU after it is `reconstructed`.
    """

    def __init__(self, backbone: str, classes: int, dropout: float = 0.0, width: int | None = None) -> None:
        super().__init__()
        own: Backbone = trunk(backbone)
        self.backbone, self.stride = own, own.strides[-1]
        self.dropout = nn.Dropout2d(dropout)
        last = nn.Conv2d(width or own.channels[-1], classes, kernel_size=1, bias=False)
        self.head: nn.Module = last
        if width is not None:
            wide = nn.Conv2d(own.channels[-1], width, kernel_size=3, padding=1)
            self.head = nn.Sequential(wide, nn.ReLU(), nn.Dropout2d(dropout), last)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to logits (B, classes)."""
        features = self.backbone(images)[-1]
        if isinstance(self.head, nn.Sequential):
            return self.head(features).mean(dim=(2, 3))
        pooled = features.mean(dim=(2, 3), keepdim=True)
        return self.head(self.dropout(pooled)).flatten(1)

    def activations(self, images: Tensor, tags: Tensor, observers: Sequence[Observer] = ()) -> Activations:
        """Raw maps of normalised images (B, 3, H, W); tags are not looked at, observers have nothing to see."""
        return Activations(self.head(self.backbone(images)[-1]))


def tag_loss(logits: Tensor, tags: Tensor) -> Tensor:
    """Multi-label soft margin loss: binary cross entropy averaged over classes and images.

    Args:
        logits: (B, classes).
        tags: (B, classes) of 0 and 1.

    Source: published (PSA and IRN), released code of IRN (`step/train_cam.py`).
    """
    return functional.multilabel_soft_margin_loss(logits.float(), tags)


@torch.no_grad()
def mean_average_precision(scores: Tensor, tags: Tensor) -> dict[int, float]:
    """Average precision of each class that at least one image has.

    Args:
        scores: (images, classes), any monotone score.
        tags: (images, classes) of 0 and 1.

    Returns:
        Average precision in [0, 1] by class index; classes without a positive image are left out.
    """
    from sklearn.metrics import average_precision_score

    present = [index for index in range(tags.shape[1]) if tags[:, index].any()]
    return {
        index: float(average_precision_score(tags[:, index].numpy(), scores[:, index].numpy())) for index in present
    }
