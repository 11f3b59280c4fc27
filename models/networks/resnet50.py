"""ResNet-50 with output stride 16, as IRN uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
from torch import Tensor, nn

from models.networks.backbone import StagedBackbone


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
