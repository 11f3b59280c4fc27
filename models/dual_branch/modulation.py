"""Activation modulation: a Gaussian favours values of middling importance, so that maps cover more of an object.

The dual branch pairs a convolutional classifier modulated this way with ToCo's transformer, and draws their class
activation maps together. Sources: Qin et al., AAAI 2022 (AMR), for the gates; "the dual-branch paper",
doi:10.19651/j.cnki.emt.2416644, for their places and the loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.maps import min_max, resize
from models.networks.backbones import BACKBONES, StagedBackbone


@dataclass(frozen=True)
class Gaussian:
    """The function that turns activations into gates: a bell around their own mean, as wide as their own deviation.

    Attributes:
        reading: height of the bell. `peak1`: 1, so gates do not change when activations are scaled or shifted
            (`reconstructed`). `stdnormal`: 1/sqrt(2 pi), the paper's words (`published`). `pdf`: 1/(sqrt(2 pi) s),
            which exceeds 1 for small deviations s (`released` code of AMR).
        statistics: mean and deviation of each `sample`, or of the whole `batch` (`released`).
        unbiased: whether deviations divide by one less than the count (`released`).
        detach: whether gradients stop at the statistics (`released`).
        epsilon: deviations of 0 count as this; 0 is `released`.
        scale: factor of the gate; with `peak1`, sqrt(2) makes it 1 on average for normally distributed activations.
    """

    reading: Literal["peak1", "pdf", "stdnormal"] = "peak1"
    statistics: Literal["sample", "batch"] = "sample"
    unbiased: bool = False
    detach: bool = True
    epsilon: float = 1e-6
    scale: float = 1.0

    def __call__(self, values: Tensor) -> Tensor:
        """Values (B, ...) to gates of the same shape, at least 0, in float32 or wider: half precision loses epsilon."""
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        dims = tuple(range(0 if self.statistics == "batch" else 1, values.dim()))
        basis = values.detach() if self.detach else values
        mean = basis.mean(dims, keepdim=True)
        deviation = (basis.var(dims, correction=int(self.unbiased), keepdim=True) + self.epsilon**2).sqrt()
        bell = self.scale * torch.exp(-(((values - mean) / deviation) ** 2) / 2)
        if self.reading == "peak1":
            return bell
        return bell / math.sqrt(2 * math.pi) / (deviation if self.reading == "pdf" else 1)


class ActivationModulation(nn.Module):
    """Multiply features by a gate for each channel and a gate for each place.

    Args:
        channels: of the features.
        gaussian: the gates' function.
        channel, spatial: which gates exist; without both the module changes nothing.
        combine: `serial`, the channel gate first (`published`), or `parallel`: both gates from the same features,
            joined by `merge`.
        merge: how parallel gates join.
        reduction: the channel gate's inner layer has channels // reduction units; 0 for a single layer.
        normalise: batch normalisation in front of the spatial Gaussian (`released`).
        residual: add the gated features to the features.

    Source: Qin et al., AAAI 2022 (AMR), and its released code (`net/amm.py`).
    """

    def __init__(
        self,
        channels: int,
        gaussian: Gaussian = Gaussian(),
        channel: bool = True,
        spatial: bool = True,
        combine: Literal["serial", "parallel"] = "serial",
        merge: Literal["mean", "sum", "product"] = "mean",
        reduction: int = 16,
        normalise: bool = True,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.gaussian, self.combine, self.merge, self.residual = gaussian, combine, merge, residual
        self.channel = _channel_layers(channels, reduction) if channel else None
        self.spatial: nn.Sequential | None = _spatial_layers(normalise) if spatial else None

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        if self.channel is None and self.spatial is None:
            return features
        gated = self._parallel(features) if self.combine == "parallel" else self._serial(features)
        return features + gated if self.residual else gated

    def _serial(self, features: Tensor) -> Tensor:
        if self.channel is not None:
            features = features * self.channel_gate(features)
        return features if self.spatial is None else features * self.spatial_gate(features)

    def _parallel(self, features: Tensor) -> Tensor:
        if self.channel is None or self.spatial is None:
            return self._serial(features)
        first, second = self.channel_gate(features), self.spatial_gate(features)
        if self.merge == "product":
            return features * (first * second)
        return features * ((first + second) / (2 if self.merge == "mean" else 1))

    def channel_gate(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to gates (B, C, 1, 1)."""
        assert self.channel is not None
        return self.gaussian(self.channel(features.mean(dim=(2, 3))))[:, :, None, None].to(features.dtype)

    def spatial_gate(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to gates (B, 1, H, W)."""
        assert self.spatial is not None
        summary = torch.cat([features.amax(dim=1, keepdim=True), features.mean(dim=1, keepdim=True)], dim=1)
        return self.gaussian(self.spatial(summary)).to(features.dtype)


def _channel_layers(channels: int, reduction: int) -> nn.Module:
    if reduction == 0:
        return nn.Linear(channels, channels)
    inner = max(1, channels // reduction)
    return nn.Sequential(nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels))


def _spatial_layers(normalise: bool) -> nn.Sequential:
    convolution = nn.Conv2d(2, 1, 7, padding=3, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(1, momentum=0.01) if normalise else nn.Identity())


class ModulatedClassifier(nn.Module):
    """The dual branch's convolutional classifier: a staged backbone with modulation after some of its stages.

    Args:
        backbone: a name in `BACKBONES` whose trunk is a chain of stages. Batch norm keeps its stored statistics.
        classes: K, without background.
        after: indices of the modulated stages; 1, 2, 3 of ResNet-50 are its first three residual stages.
        options: of `ActivationModulation`.

    The first stage learns only where it is modulated; all others always learn, so that gates are the only difference
    between networks with and without them. Source: the dual-branch paper, section 1.2 (`published`); output stride 16
    and the frozen stem as in the released code of AMR.
    """

    def __init__(self, backbone: str, classes: int, after: Sequence[int] = (1, 2, 3), **options: Any) -> None:
        super().__init__()
        trunk = BACKBONES[backbone]()
        if not isinstance(trunk, StagedBackbone):
            raise TypeError(f"{backbone} is no chain of stages")
        self.backbone, self.mean, self.std = trunk.requires_grad_(True), trunk.mean, trunk.std
        self.frozen_stages = min(1, *after) if after else 1
        self.modulations = nn.ModuleDict(
            {str(stage): ActivationModulation(trunk.channels[stage], **options) for stage in after}
        )
        self.head = nn.Conv2d(trunk.channels[-1], classes, kernel_size=1, bias=False)

    def cams(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to activation maps (B, K, h, w) before ReLU; their mean is the logit."""
        features = images
        for number, stage in enumerate(self.backbone.stages()):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= self.frozen_stages):
                features = stage(features)
                if str(number) in self.modulations:
                    features = self.modulations[str(number)](features)
        maps: Tensor = self.head(features)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to logits (B, K)."""
        return self.cams(images).mean(dim=(2, 3))


def consistency_loss(
    cams: Tensor, others: Tensor, tags: Tensor, norm: Literal[1, 2] = 1, spread: bool = True
) -> Tensor:
    """Distance between two networks' activation maps of the same view, over the classes that the images have.

    Both take part in learning; detach one to let it lead.

    Args:
        cams: (B, K, h, w) before ReLU.
        others: the other network's; resized to the grid of `cams` if theirs differs.
        tags: (B, K) of 0 and 1.
        norm: 1 for absolute, 2 for squared differences.
        spread: bring every map to [0, 1] first, see `models.maps.min_max`.

    Returns:
        Mean over present classes and cells; 0 without any.

    Source: the dual-branch paper, eq. 1 (`published`); mean and spreading `reconstructed`, since the raw maps of the
    two networks have different scales.
    """
    if others.shape[2:] != cams.shape[2:]:
        others = resize(others, cams.shape[2:])
    first, second = (min_max(maps.float().relu()) if spread else maps.float().relu() for maps in (cams, others))
    difference = (first - second).abs() if norm == 1 else (first - second).square()
    present = tags > 0
    return (difference.mean(dim=(2, 3)) * present).sum() / present.sum().clamp(min=1)
