"""Activation modulation: a Gaussian favours values of middling importance, so that maps cover more of an object.

The dual branch pairs a convolutional classifier modulated this way with ToCo's transformer, and draws their class
activation maps together. Sources: Qin et al., AAAI 2022 (AMR), for the gates; "the dual-branch paper",
doi:10.19651/j.cnki.emt.2416644, for their places and the loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from models.build import trunk as trunk_of
from models.dual_branch.knobs import ConsistencyKnobs, GaussianKnobs, ModulationKnobs
from models.maps import min_max, resize
from models.networks.backbone import StagedBackbone

EPSILON = 1e-6  # deviations of 0 count as this; the released code of AMR has 0


def gaussian_gates(values: Tensor, knobs: GaussianKnobs) -> Tensor:
    """Gates from activations: a bell around their own mean, as wide as their own deviation.

    Args:
        values: (B, ...).
        knobs: height of the bell, and how mean and deviation are taken.

    Returns:
        The same shape, at least 0, in float32 or wider: half precision loses `EPSILON`.

    Source: Qin et al., AAAI 2022 (AMR), eq. 3 (`published`); what readings differ in is said beside the knobs.
    """
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    dims = tuple(range(0 if knobs.statistics == "batch" else 1, values.dim()))
    basis = values.detach() if knobs.detach else values
    mean = basis.mean(dims, keepdim=True)
    deviation = (basis.var(dims, correction=int(knobs.unbiased), keepdim=True) + EPSILON**2).sqrt()
    bell = knobs.gate_scale * torch.exp(-(((values - mean) / deviation) ** 2) / 2)
    if knobs.gaussian == "peak1":
        return bell
    return bell / math.sqrt(2 * math.pi) / (deviation if knobs.gaussian == "pdf" else 1)


class ActivationModulation(nn.Module):
    """Multiply features by a gate for each channel and a gate for each place.

    Args:
        channels: of the features.
        knobs: which gates exist, and how they join; without both the module changes nothing.

    Source: Qin et al., AAAI 2022 (AMR), and its released code (`net/amm.py`).
    """

    def __init__(self, channels: int, knobs: ModulationKnobs = ModulationKnobs()) -> None:
        super().__init__()
        self.knobs = knobs
        self.channel = _channel_layers(channels, knobs.reduction) if knobs.channel else None
        self.spatial: nn.Sequential | None = _spatial_layers(knobs.normalise) if knobs.spatial else None

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        if self.channel is None and self.spatial is None:
            return features
        gated = self._parallel(features) if self.knobs.combine == "parallel" else self._serial(features)
        return features + gated if self.knobs.residual else gated

    def _serial(self, features: Tensor) -> Tensor:
        if self.channel is not None:
            features = features * self.channel_gate(features)
        return features if self.spatial is None else features * self.spatial_gate(features)

    def _parallel(self, features: Tensor) -> Tensor:
        if self.channel is None or self.spatial is None:
            return self._serial(features)
        first, second = self.channel_gate(features), self.spatial_gate(features)
        if self.knobs.merge == "product":
            return features * (first * second)
        return features * ((first + second) / (2 if self.knobs.merge == "mean" else 1))

    def channel_gate(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to gates (B, C, 1, 1)."""
        assert self.channel is not None
        return gaussian_gates(self.channel(features.mean(dim=(2, 3))), self.knobs)[:, :, None, None].to(features.dtype)

    def spatial_gate(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to gates (B, 1, H, W)."""
        assert self.spatial is not None
        summary = torch.cat([features.amax(dim=1, keepdim=True), features.mean(dim=1, keepdim=True)], dim=1)
        return gaussian_gates(self.spatial(summary), self.knobs).to(features.dtype)


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
        backbone: a name in `models.registry.BACKBONES` whose trunk is a chain of stages; batch norm is frozen.
        classes: K, without background.
        knobs: of the modulation.
        stages: indices of the modulated stages of the trunk; 1, 2, 3 of ResNet-50 are its first three residual ones.

    The first stage learns only where it is modulated; all others always learn, so that gates are the only difference
    between networks with and without them. Source: the dual-branch paper, section 1.2 (`published`); output stride 16
    and the frozen stem as in the released code of AMR.
    """

    def __init__(
        self, backbone: str, classes: int, knobs: ModulationKnobs = ModulationKnobs(), stages: Sequence[int] = (1, 2, 3)
    ) -> None:
        super().__init__()
        stages = stages if knobs.channel or knobs.spatial else ()
        trunk = trunk_of(backbone)
        if not isinstance(trunk, StagedBackbone):
            raise TypeError(f"{backbone} is no chain of stages")
        self.backbone, self.mean, self.std = trunk.requires_grad_(True), trunk.mean, trunk.std
        self.frozen_stages = min(1, *stages) if stages else 1
        self.modulations = nn.ModuleDict(
            {str(stage): ActivationModulation(trunk.channels[stage], knobs) for stage in stages}
        )
        self.head = nn.Conv2d(trunk.channels[-1], classes, kernel_size=1, bias=False)

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Load ImageNet weights into the trunk; ValueError where they do not fit."""
        self.backbone.load_pretrained(state)

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
    cams: Tensor, others: Tensor, tags: Tensor, knobs: ConsistencyKnobs = ConsistencyKnobs()
) -> Tensor:
    """Distance between two networks' activation maps of the same view, over the classes that the images have.

    Both take part in learning; detach one to let it lead.

    Args:
        cams: (B, K, h, w) before ReLU.
        others: the other network's; resized to the grid of `cams` if theirs differs.
        tags: (B, K) of 0 and 1.
        knobs: the norm, and whether every map is stretched to [0, 1] first (`min_max`).

    Returns:
        Mean over present classes and cells; 0 without any.

    Source: the dual-branch paper, eq. 1 (`published`); mean and spreading `reconstructed`, since the raw maps of the
    two networks have different scales.
    """
    if others.shape[2:] != cams.shape[2:]:
        others = resize(others, cams.shape[2:])
    first, second = (
        min_max(maps.float().relu()) if knobs.consistency_spread else maps.float().relu() for maps in (cams, others)
    )
    difference = (first - second).abs() if knobs.consistency_norm == 1 else (first - second).square()
    present = tags > 0
    return (difference.mean(dim=(2, 3)) * present).sum() / present.sum().clamp(min=1)
