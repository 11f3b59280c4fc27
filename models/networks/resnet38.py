"""Wide ResNet-38 with output stride 8, under the parameter names of the released affinity-learning code.

Source: Wu, Shen & van den Hengel, 2016 ("model A1"); layout, frozen parts and dropout of the released PSA
code of Ahn & Kwak, CVPR 2018.
"""

from typing import NamedTuple, Self

import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.backbone import Backbone


class Taps(NamedTuple):
    """Rectified features after the fourth, fifth and last level: 512, 1024 and 4096 channels at stride 8."""

    conv4: Tensor
    conv5: Tensor
    conv6: Tensor


class _Block(nn.Module):
    """Pre-activation residual block of two 3x3 convolutions."""

    def __init__(self, inside: int, middle: int, outside: int, stride: int, dilations: tuple[int, int]) -> None:
        super().__init__()
        first, second = dilations
        self.bn_branch2a = nn.BatchNorm2d(inside)
        self.conv_branch2a = _conv3(inside, middle, stride, first)
        self.bn_branch2b1 = nn.BatchNorm2d(middle)
        self.conv_branch2b1 = _conv3(middle, outside, 1, second)
        self.conv_branch1: nn.Conv2d | None = None
        if inside != outside or stride != 1:
            self.conv_branch1 = nn.Conv2d(inside, outside, 1, stride, bias=False)

    def activate(self, x: Tensor) -> Tensor:
        """The normalised, rectified input, which is also what the taps see."""
        return F.relu(self.bn_branch2a(x))

    def forward(self, x: Tensor) -> Tensor:
        active = self.activate(x)
        # A projection starts from the rectified input, an identity from the raw one.
        shortcut = x if self.conv_branch1 is None else self.conv_branch1(active)
        out = F.relu(self.bn_branch2b1(self.conv_branch2a(active)))
        return shortcut + self.conv_branch2b1(out)


class _Bottleneck(nn.Module):
    """Pre-activation residual block 1x1, 3x3 (dilation 4), 1x1 with channel dropout."""

    def __init__(self, inside: int, outside: int, dropout: float) -> None:
        super().__init__()
        quarter, half = outside // 4, outside // 2
        self.bn_branch2a = nn.BatchNorm2d(inside)
        self.conv_branch2a = nn.Conv2d(inside, quarter, 1, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(quarter)
        self.conv_branch2b1 = _conv3(quarter, half, 1, 4)
        self.bn_branch2b2 = nn.BatchNorm2d(half)
        self.conv_branch2b2 = nn.Conv2d(half, outside, 1, bias=False)
        self.conv_branch1 = nn.Conv2d(inside, outside, 1, bias=False)
        self.dropout = nn.Dropout2d(dropout)

    def activate(self, x: Tensor) -> Tensor:
        """The normalised, rectified input, which is also what the taps see."""
        return F.relu(self.bn_branch2a(x))

    def forward(self, x: Tensor) -> Tensor:
        active = self.activate(x)
        out = self.dropout(F.relu(self.bn_branch2b1(self.conv_branch2a(active))))
        out = self.dropout(F.relu(self.bn_branch2b2(self.conv_branch2b1(out))))
        return self.conv_branch1(active) + self.conv_branch2b2(out)


def _conv3(inside: int, outside: int, stride: int, dilation: int) -> nn.Conv2d:
    """3x3 convolution without bias that keeps the size (up to its stride)."""
    return nn.Conv2d(inside, outside, 3, stride, padding=dilation, dilation=dilation, bias=False)


class ResNet38(Backbone):
    """The trunk, tapped where AffinityNet reads it. Its first level and all batch normalisation are frozen, always.

    Input: (B, 3, H, W) RGB, divided by 255 and normalised by ImageNet's mean and deviation.
    """

    channels = (512, 1024, 4096)
    strides = (8, 8, 8)
    normalised = True
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(self) -> None:
        super().__init__()
        self.conv1a = _conv3(3, 64, 1, 1)
        self._add_level("b2", 3, 64, 128)
        self._add_level("b3", 3, 128, 256)
        self._add_level("b4", 6, 256, 512)
        self.b5 = _Block(512, 512, 1024, 1, (1, 2))
        self.b5_1 = _Block(1024, 512, 1024, 1, (2, 2))
        self.b5_2 = _Block(1024, 512, 1024, 1, (2, 2))
        self.b6 = _Bottleneck(1024, 2048, 0.3)
        self.b7 = _Bottleneck(2048, 4096, 0.5)
        self.bn7 = nn.BatchNorm2d(4096)
        self._freeze()

    def _add_level(self, name: str, blocks: int, inside: int, outside: int) -> None:
        """Blocks name, name_1, name_2, ... of which the first halves the resolution."""
        self.add_module(name, _Block(inside, outside, outside, 2, (1, 1)))
        for i in range(1, blocks):
            self.add_module(f"{name}_{i}", _Block(outside, outside, outside, 1, (1, 1)))

    def _freeze(self) -> None:
        """No gradient for the first level and for any batch normalisation."""
        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        for module in [self.conv1a, *(self.get_submodule(name) for name in ("b2", "b2_1", "b2_2")), *norms]:
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the training mode of everything but batch normalisation, which stays in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def taps(self, image: Tensor) -> Taps:
        """(B, 3, H, W) normalised RGB -> three feature maps of size (ceil(H/8), ceil(W/8))."""
        x = self.conv1a(image)
        for level, blocks in (("b2", 3), ("b3", 3), ("b4", 6)):
            for i in range(blocks):
                x = self.get_submodule(f"{level}_{i}" if i else level)(x)
        conv4 = self.b5.activate(x)
        x = self.b5_2(self.b5_1(self.b5(x)))
        conv5 = self.b6.activate(x)
        return Taps(conv4, conv5, F.relu(self.bn7(self.b7(self.b6(x)))))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W) to three maps (B, channels[i], ceil(H / 8), ceil(W / 8))."""
        return list(self.taps(images))
