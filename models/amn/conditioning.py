"""Heads that are told which classes an image has: label conditioning and activation manipulation (AMN, BAO)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

HeadKind = Literal["aspp", "conv3x3", "conv1x1"]


class LabelConditioning(nn.Module):
    """Channel gates from image tags: one linear layer without activation, multiplied into the features.

    Source: Lee et al., CVPR 2022 (`published`); no activation and PyTorch's initialisation as `released`.
    """

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.gate = nn.Linear(classes, channels)

    def forward(self, features: Tensor, tags: Tensor) -> Tensor:
        """Features (B, channels, h, w) and tags (B, classes) of 0 and 1 to gated features of the same shape."""
        return features * self.gate(tags.to(self.gate.weight.dtype))[:, :, None, None]


class DilatedSum(nn.Module):
    """Dropout, then the sum of parallel dilated 3x3 convolutions.

    Args:
        channels: channels of the features.
        labels: channels of the result.
        rates: dilation of each convolution.
        dropout: probability that a value is dropped. The released AMN code keeps dropout on even at inference, where
            nothing gains from it; in evaluation mode it is off here.

    Source: DeepLab-v2's pyramid; rates, dropout and initialisation N(0, 0.01) of the `released` AMN code.
    """

    def __init__(
        self, channels: int, labels: int, rates: Sequence[int] = (6, 12, 18, 24), dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, labels, kernel_size=3, padding=rate, dilation=rate) for rate in rates
        )
        for branch in self.branches:
            nn.init.normal_(branch.weight, std=0.01)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, h, w) to logits (B, labels, h, w)."""
        features = self.dropout(features)
        first, *others = self.branches
        return sum((branch(features) for branch in others), start=first(features))


def manipulation_head(kind: HeadKind, channels: int, labels: int) -> nn.Module:
    """The layer from features (B, channels, h, w) to logits (B, labels, h, w).

    Args:
        kind: `aspp`: AMN's sum of dilated convolutions; `conv3x3`: BAO's; `conv1x1`: the plainest (`reconstructed`).
        channels: channels of the features.
        labels: classes and background.
    """
    if kind == "aspp":
        return DilatedSum(channels, labels)
    size = 3 if kind == "conv3x3" else 1
    convolution = nn.Conv2d(channels, labels, size, padding=size // 2)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


class ConditionedHead(nn.Module):
    """Label conditioning and a manipulation head: everything that AMN and BAO add to a backbone.

    Args:
        kind: see `manipulation_head`.
        channels: channels of the features.
        classes: foreground classes.
    """

    def __init__(self, kind: HeadKind, channels: int, classes: int) -> None:
        super().__init__()
        self.condition = LabelConditioning(classes, channels)
        self.manipulate = manipulation_head(kind, channels, 1 + classes)

    def forward(self, features: Tensor, tags: Tensor) -> Tensor:
        """Features (B, channels, h, w) and tags (B, classes) to logits (B, 1+classes, h, w), channel 0 background."""
        return self.manipulate(self.condition(features, tags))
