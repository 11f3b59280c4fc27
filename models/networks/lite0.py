"""EfficientNet-Lite0, the trunk of the compact profile: its ImageNet weights come inside a package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
from torch import Tensor, nn

from models.networks.backbone import StagedBackbone


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
