"""Feature extractors of output stride 16 or 8 that return the maps of all their stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor, nn

from models.networks.loading import load_trunk


class Backbone(nn.Module):
    """A trunk whose stages can be tapped.

    Attributes:
        channels: channels of each stage's map.
        strides: how many input pixels one cell of each stage's map spans.
        mean, std: normalisation of RGB in [0, 1] that the ImageNet weights expect.
        left_out: patterns of the entries of those weights whose layers do not exist here.
        normalised: its maps come out of batch normalisation, so that heads on them need none of their own.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    left_out: tuple[str, ...] = ()
    normalised = False

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Load ImageNet weights; only heads may differ, and what `left_out` names.

        Raises:
            ValueError: listing missing, unexpected and wrongly shaped names.
        """
        load_trunk(self, state)


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
