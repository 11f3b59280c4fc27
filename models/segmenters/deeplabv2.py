"""DeepLab-v2 on the ResNets of Caffe, at several scales at once: the segmenter of most papers on weak supervision.

Source: Chen et al., TPAMI 2018 (`published`); layout, names of the entries, frozen parts and the four-term loss of
kazuto1011/deeplab-pytorch (`released`); spec affinity_irn_esol_deeplab 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.maps import nearest, resize
from models.networks.loading import check_and_load
from models.segmenters.segmenter import PixelLoss, Segmenter

SCALES = (0.5, 0.75)
"""Besides scale 1."""

RATES = (6, 12, 18, 24)
MEAN = (122.675, 116.669, 104.008)


class _ConvNorm(nn.Sequential):
    """A convolution without bias and batch norm, then ReLU where asked for."""

    def __init__(self, inside: int, outside: int, size: int, stride: int = 1, dilation: int = 1, relu: bool = True):
        super().__init__()
        padding = dilation * (size // 2)
        self.conv = nn.Conv2d(inside, outside, size, stride, padding, dilation, bias=False)
        self.bn = nn.BatchNorm2d(outside)
        if relu:
            self.relu = nn.ReLU()


class _Bottleneck(nn.Module):
    """Residual block whose stride is on its first convolution, as in Caffe's ResNets."""

    def __init__(self, inside: int, outside: int, stride: int, dilation: int, projects: bool) -> None:
        super().__init__()
        middle = outside // 4
        self.reduce = _ConvNorm(inside, middle, 1, stride)
        self.conv3x3 = _ConvNorm(middle, middle, 3, dilation=dilation)
        self.increase = _ConvNorm(middle, outside, 1, relu=False)
        self.shortcut = _ConvNorm(inside, outside, 1, stride, relu=False) if projects else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(self.increase(self.conv3x3(self.reduce(features))) + self.shortcut(features))


def _level(blocks: int, inside: int, outside: int, stride: int, dilation: int) -> nn.Sequential:
    """Blocks `block1`, `block2`, ... of which the first projects."""
    level = nn.Sequential()
    for number in range(blocks):
        first = number == 0
        block = _Bottleneck(inside if first else outside, outside, stride if first else 1, dilation, first)
        level.add_module(f"block{number + 1}", block)
    return level


class _Pyramid(nn.Module):
    """Dilated convolutions `c0`, `c1`, ... side by side, added."""

    def __init__(self, inside: int, labels: int) -> None:
        super().__init__()
        for number, rate in enumerate(RATES):
            branch = nn.Conv2d(inside, labels, 3, padding=rate, dilation=rate)
            nn.init.normal_(branch.weight, std=0.01)
            nn.init.zeros_(torch.as_tensor(branch.bias))
            self.add_module(f"c{number}", branch)

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([branch(features) for branch in self.children()]).sum(0)


class _DeepLabV2(nn.Sequential):
    """Stem, four levels at output stride 8, and the pyramid; its batch norms keep their statistics and never learn."""

    def __init__(self, labels: int, blocks: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.layer1 = nn.Sequential()
        self.layer1.add_module("conv1", _ConvNorm(3, 64, 7, 2))
        self.layer1.add_module("pool", nn.MaxPool2d(3, 2, 1, ceil_mode=True))
        self.layer2 = _level(blocks[0], 64, 256, 1, 1)
        self.layer3 = _level(blocks[1], 256, 512, 2, 1)
        self.layer4 = _level(blocks[2], 512, 1024, 1, 2)
        self.layer5 = _level(blocks[3], 1024, 2048, 1, 4)
        self.aspp = _Pyramid(2048, labels)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but batch norm."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class DeepLabV2(Segmenter):
    """The network at scales 1, 0.5 and 0.75 with the same weights; the largest logit of the three wins.

    Args:
        labels: classes and background.
        blocks: residual blocks of each level.

    Attributes:
        base: the network at one scale. Its entries have the released names, those of the initial weights among them,
            which belong to images in the order blue, green, red.
    """

    mean = (MEAN[0] / 255, MEAN[1] / 255, MEAN[2] / 255)
    std = (1 / 255, 1 / 255, 1 / 255)

    def __init__(self, labels: int, blocks: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.base = _DeepLabV2(labels, blocks)

    @property
    def head(self) -> nn.Module:  # type: ignore[override]
        """The pyramid."""
        return self.base.aspp

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Load initial weights of ImageNet or COCO under the released names; the pyramid may differ.

        Raises:
            ValueError: listing missing, unexpected and wrongly shaped names.
        """
        check_and_load(self.base, state, ("aspp.*", "fc.*", "*num_batches_tracked"))

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W), red first, to logits: of scales 1, 0.5 and 0.75, and their maximum.

        Each (B, labels, h, w) at stride 8 of its scale; the maximum at that of scale 1.
        """
        flipped = images.flip(1)
        logits = [self.base(flipped)]
        for scale in SCALES:
            smaller = functional.interpolate(flipped, scale_factor=scale, mode="bilinear", align_corners=False)
            logits.append(self.base(smaller))
        placed = [logits[0], *(resize(some, logits[0].shape[2:]) for some in logits[1:])]
        return [*logits, torch.stack(placed).amax(0)]

    def forward(self, images: Tensor) -> Any:
        """In training mode the logits of `pyramid`, else the maximum at the size of the images."""
        logits = self.pyramid(images)
        return logits if self.training else resize(logits[-1], images.shape[2:])

    def loss(self, outputs: list[Tensor], labels: Tensor, term: PixelLoss) -> Tensor:
        """The sum of four losses, each with labels reduced to its grid by taking the pixel under a cell's centre."""
        terms = [term(logits.float(), nearest(labels, logits.shape[2:])) for logits in outputs]
        return torch.stack(terms).sum()


def deeplabv2_resnet101(labels: int) -> DeepLabV2:
    """On ResNet-101."""
    return DeepLabV2(labels, (3, 4, 23, 3))


def deeplabv2_resnet50(labels: int) -> DeepLabV2:
    """On ResNet-50."""
    return DeepLabV2(labels, (3, 4, 6, 3))
