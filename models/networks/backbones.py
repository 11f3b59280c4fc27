"""Feature extractors of output stride 16 that return the maps of all their stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import timm
import torch
from torch import Tensor, nn

from models.networks.resnet38 import ResNet38


class Backbone(nn.Module):
    """A trunk whose stages can be tapped.

    Attributes:
        channels: channels of each stage's map.
        strides: how many input pixels one cell of each stage's map spans.
        mean, std: normalisation of RGB in [0, 1] that the ImageNet weights expect.
        left_out: patterns of the entries of those weights whose layers do not exist here.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    left_out: tuple[str, ...] = ()


class StagedBackbone(Backbone):
    """A trunk that is a chain of stages.

    Batch norm always uses its stored statistics (its scale and shift still learn), as in the released code of PSA
    and IRN: batches of crops are too small and too uneven for statistics of their own.
    """

    def __init__(self, frozen_stages: int) -> None:
        super().__init__()
        self.frozen_stages = frozen_stages

    def stages(self) -> list[Callable[[Tensor], Tensor]]:
        """The stages, applied one after the other."""
        raise TypeError(f"{type(self).__name__} names no stages")

    def forward(self, images: Tensor, count: int | None = None) -> list[Tensor]:
        """Normalised images (B, 3, H, W) to one map (B, channels[i], ~H / strides[i], ~W / strides[i]) per stage.

        No gradient flows into the first `frozen_stages` stages; `count` stops after so many stages.
        """
        maps: list[Tensor] = []
        features = images
        for number, stage in enumerate(self.stages()[:count]):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= self.frozen_stages):
                features = stage(features)
            maps.append(features)
        return maps

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but batch norm."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def _freeze(self, *modules: nn.Module) -> None:
        for module in modules:
            module.requires_grad_(False)


class EfficientNetLite0(StagedBackbone):
    """EfficientNet-Lite0 (timm `tf_efficientnet_lite0`) at output stride 16, for the compact profile.

    Args:
        depth: of its six stages the first so many exist; at least 4.
    """

    channels: tuple[int, ...] = (16, 24, 40, 112, 320, 1280)
    strides: tuple[int, ...] = (2, 4, 8, 16, 16, 16)
    mean = std = (0.5, 0.5, 0.5)
    conv_stem: nn.Module
    bn1: nn.Module
    blocks: nn.Sequential
    conv_head: nn.Module
    bn2: nn.Module

    def __init__(self, depth: int = 6) -> None:
        super().__init__(frozen_stages=3)
        trunk: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False, output_stride=16)
        self.conv_stem, self.bn1, self.blocks = trunk.conv_stem, trunk.bn1, trunk.blocks[: 2 * depth - 3]
        if depth == len(self.channels):
            self.conv_head, self.bn2 = trunk.conv_head, trunk.bn2
        else:
            self.left_out = (*(f"blocks.{number}.*" for number in range(len(self.blocks), 7)), "conv_head.*", "bn2.*")
        self.channels, self.strides = self.channels[:depth], self.strides[:depth]
        self._freeze(self.conv_stem, self.bn1, *self.blocks[:3])

    def stages(self) -> list[Callable[[Tensor], Tensor]]:
        """Stem and first block, the blocks that halve the grid, those of stride 16, and the head convolution."""
        blocks = self.blocks
        stages: list[Callable[[Tensor], Tensor]] = [
            lambda x: blocks[0](self.bn1(self.conv_stem(x))),
            blocks[1],
            blocks[2],
            lambda x: blocks[4](blocks[3](x)),
            lambda x: blocks[6](blocks[5](x)),
            lambda x: self.bn2(self.conv_head(x)),
        ]
        return stages[: len(self.channels)]


class ResNet50(StagedBackbone):
    """ResNet-50 as IRN uses it: the last stage keeps stride 16, undilated; nothing before the third stage learns.

    Source: released code of IRN (`net/resnet50.py`): strides 2, 2 (pool), 1, 2, 2, 1.
    """

    channels = (64, 256, 512, 1024, 2048)
    strides = (4, 4, 8, 16, 16)
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    conv1: nn.Module
    bn1: nn.Module
    act1: nn.Module
    maxpool: nn.Module
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self) -> None:
        super().__init__(frozen_stages=3)
        trunk: Any = timm.create_model("resnet50", pretrained=False)
        self.conv1, self.bn1, self.act1, self.maxpool = trunk.conv1, trunk.bn1, trunk.act1, trunk.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            trunk.layer1,
            trunk.layer2,
            trunk.layer3,
            trunk.layer4,
        )
        for module in self.layer4.modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
        self._freeze(self.conv1, self.bn1, self.layer1, self.layer2)

    def stages(self) -> list[Callable[[Tensor], Tensor]]:
        """Stem with pooling, then the four residual stages."""
        stem = nn.Sequential(self.conv1, self.bn1, self.act1, self.maxpool)
        return [stem, self.layer1, self.layer2, self.layer3, self.layer4]


class ResNet38Backbone(ResNet38, Backbone):
    """The wide ResNet-38 of PSA, output stride 8, tapped where AffinityNet reads it."""

    channels = (512, 1024, 4096)
    strides = (8, 8, 8)
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W) to three maps (B, channels[i], ceil(H / 8), ceil(W / 8))."""
        return list(self.taps(images))


BACKBONES: dict[str, Callable[[], Backbone]] = {
    "efficientnet_lite0": EfficientNetLite0,
    "resnet50": ResNet50,
    "resnet38": ResNet38Backbone,
}
