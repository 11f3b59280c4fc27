"""A trunk small enough for tests of what is built on one."""

from __future__ import annotations

from torch import Tensor, nn

from models.networks.backbone import Backbone
from models.registry import Network


class Tiny(Backbone):
    """Two layers of stride 4, whose features are as rough as noise."""

    channels, strides = (6, 8), (2, 4)
    mean = std = (0.5, 0.5, 0.5)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 2, stride=2)
        self.second = nn.Sequential(nn.Conv2d(6, 8, 2, stride=2), nn.Dropout(0.5))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W) to both layers' maps."""
        first = self.first(images).relu()
        return [first, self.second(first).relu()]


TINY = Network("tests.support.tiny_networks:Tiny")
"""Its line in `models.registry.BACKBONES`."""
