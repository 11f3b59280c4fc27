"""AffinityNet: features whose distance says whether two neighbouring cells belong together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.affinity.knobs import Reading
from models.affinity.pairs import MAX_LABELS, Border, Neighbourhood, PairMasks, pair_masks, reduce_label
from models.build import trunk

# Widths of the three projections, and weights of the three loss terms (background, foreground, negative).
WIDTHS: dict[Reading, tuple[int, ...]] = {"released": (64, 128, 256), "published": (128, 256, 512)}
LOSS_WEIGHTS: dict[Reading, tuple[float, float, float]] = {
    "released": (0.25, 0.25, 0.5),
    "published": (1.0, 1.0, 2.0),
}
_EPSILON = 1e-5


class AffinityLoss(NamedTuple):
    """The weighted sum and its three terms, 0-d tensors."""

    total: Tensor
    bg: Tensor
    fg: Tensor
    neg: Tensor


class AffinityNet(nn.Module):
    """AffinityNet head over the feature maps of any trunk.

    Each map is projected by a 1x1 convolution with group normalisation (8 channels to a group), brought to
    the common grid, rectified by ELU, and all are mixed by one more 1x1 convolution. On maps of one size this
    is the head of the released VGG-16 network; the resizing for trunks with several strides is ours
    (`reconstructed`).

    Args:
        channels: channels of each feature map.
        widths: channels of each projection, multiples of 8.
        group_norm: normalise each projection, as the released VGG-16 network does and its ResNet-38 does not.

    Raises:
        ValueError: if the two lists do not fit.
    """

    def __init__(
        self, channels: Sequence[int], widths: Sequence[int] = WIDTHS["released"], group_norm: bool = True
    ) -> None:
        super().__init__()
        if len(channels) != len(widths) or any(width % 8 for width in widths):
            raise ValueError(f"need one width, a multiple of 8, per map; got {channels} and {widths}")
        pairs = list(zip(channels, widths, strict=True))
        convolutions = [nn.Conv2d(inside, outside, 1, bias=False) for inside, outside in pairs]
        self.project = nn.ModuleList(
            nn.Sequential(convolution, nn.GroupNorm(width // 8, width) if group_norm else nn.Identity())
            for convolution, width in zip(convolutions, widths, strict=True)
        )
        self.mix = nn.Conv2d(sum(widths), sum(widths), 1, bias=False)
        _initialise(convolutions, self.mix)

    def forward(self, features: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """Feature maps (B, C_i, h_i, w_i) -> affinity feature (B, sum of widths, *grid)."""
        parts = [F.elu(_resize(p(f), grid)) for p, f in zip(self.project, features, strict=True)]
        return F.elu(self.mix(torch.cat(parts, 1)))


def _initialise(projections: Sequence[nn.Conv2d], mix: nn.Conv2d) -> None:
    """Released initialisation of the new layers."""
    for projection in projections:
        nn.init.kaiming_normal_(projection.weight)
    nn.init.xavier_uniform_(mix.weight, gain=4)


def _resize(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Bilinear resize, left out where the size fits already."""
    if tuple(maps.shape[-2:]) == tuple(grid):
        return maps
    return F.interpolate(maps, size=grid, mode="bilinear", align_corners=False)


class _PairAffinity(torch.autograd.Function):
    """exp(-scale * sum_c |f_target - f_source|); differences are recomputed in the backward pass.

    Keeping them would take n_offsets times the memory of the feature.
    """

    @staticmethod
    def forward(ctx: Any, feature: Tensor, hood: Neighbourhood, scale: float) -> Tensor:
        batch, _, h, w = feature.shape
        affinity = feature.new_zeros(batch, len(hood.offsets), h, w)
        for o, (source, target) in enumerate(hood.windows(h, w)):
            distance = (feature[:, :, *target] - feature[:, :, *source]).abs_().sum(1)
            affinity[:, o, *source] = distance.mul_(-scale).exp_()
        ctx.save_for_backward(feature, affinity)
        ctx.hood, ctx.scale = hood, scale
        return affinity

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        feature, affinity = ctx.saved_tensors
        slope = grad * affinity * -ctx.scale
        result = torch.zeros_like(feature)
        for o, (source, target) in enumerate(ctx.hood.windows(*feature.shape[-2:])):
            sign = (feature[:, :, *target] - feature[:, :, *source]).sign_()
            sign *= slope[:, None, o, *source]
            result[:, :, *target] += sign
            result[:, :, *source] -= sign
        return result, None, None


def feature_affinity(feature: Tensor, hood: Neighbourhood, reading: Reading = "released") -> Tensor:
    """Affinities exp(-distance) of all pairs of a neighbourhood.

    Args:
        feature: (B, C, h, w) floating point; half precision is computed in float32.
        hood: the pairs.
        reading: distance of two features: `released` the mean, `published` the sum of absolute differences.

    Returns:
        (B, n_offsets, h, w) in (0, 1], stencil layout, 0 where no pair exists; differentiable once.

    Source: Ahn & Kwak, CVPR 2018, eq. 4.
    """
    feature = feature.to(torch.promote_types(feature.dtype, torch.float32))
    scale = 1.0 / feature.shape[1] if reading == "released" else 1.0
    affinity: Tensor = _PairAffinity.apply(feature, hood, scale)
    return affinity


def affinity_loss(
    affinity: Tensor,
    masks: PairMasks,
    weights: tuple[float, float, float] = LOSS_WEIGHTS["released"],
) -> AffinityLoss:
    """Balanced cross entropy of the affinities.

    Args:
        affinity: (B, n_offsets, h, w) in [0, 1], stencil layout.
        masks: the labelled pairs, same shape.
        weights: of the background, foreground and negative term; `released` (1/4, 1/4, 1/2), `published`
            (1, 1, 2).

    Returns:
        The loss and its terms, each term a mean over its pairs of the whole batch. A term without pairs is 0
        and has no gradient.

    Source: Ahn & Kwak, CVPR 2018, eq. 5-7; epsilons from the released PSA code. The boundary loss of Ahn, Cho
    & Kwak, CVPR 2019, eq. 4, has the same form.
    """
    attract = -torch.log(affinity + _EPSILON)
    repel = -torch.log(1 + _EPSILON - affinity)
    values = (attract, attract, repel)
    labelled = zip(values, masks, strict=True)
    terms = [(value * mask).sum() / (mask.sum() + _EPSILON) for value, mask in labelled]
    total = sum((w * term for w, term in zip(weights, terms, strict=True)), start=affinity.new_zeros(()))
    return AffinityLoss(total, *terms)


class FeatureAffinity(nn.Module):
    """AffinityNet: features at stride 8 whose distance is the affinity.

    The backbone learns too. On ResNet-38 the three taps of the paper are used; on other trunks the last stage of
    each stride from 8 on, brought to the grid of stride 8 (`reconstructed`).

    Source: Ahn & Kwak, CVPR 2018, section 3.2.
    """

    stride = 8

    def __init__(self, backbone: str, reading: Reading = "released") -> None:
        super().__init__()
        self.backbone, self.reading = trunk(backbone), reading
        self.taps = [number for number, stride in enumerate(self.backbone.strides) if stride >= self.stride][:2]
        self.taps.append(len(self.backbone.strides) - 1)
        channels = [self.backbone.channels[tap] for tap in self.taps]
        self.head = AffinityNet(channels, WIDTHS[reading], group_norm=not self.backbone.normalised)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to features (B, C, ceil(H / 8), ceil(W / 8))."""
        maps = self.backbone(images)
        grid = (-(-images.shape[2] // self.stride), -(-images.shape[3] // self.stride))
        return self.head([maps[tap] for tap in self.taps], grid)

    def loss(self, features: Tensor, labels: Tensor, radius: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The three-term loss of confident labels (B, H, W), and its terms.

        Source: Ahn & Kwak, CVPR 2018, eq. 5-7; pairs with the border rule of the released code.
        """
        hood = Neighbourhood(radius, "psa")
        masks = pair_masks(reduce_label(labels, self.stride), hood, MAX_LABELS)
        terms = affinity_loss(feature_affinity(features, hood, self.reading), masks, LOSS_WEIGHTS[self.reading])
        return terms.total, {"background": terms.bg, "foreground": terms.fg, "different": terms.neg}

    @torch.inference_mode()
    def affinity(self, images: Tensor, radius: int, border: Border) -> tuple[Tensor, Tensor | None]:
        """Affinities (B, offsets, h, w) in [0, 1] for the walk; this network knows no boundary."""
        return feature_affinity(self(images).float(), Neighbourhood(radius, border), self.reading), None
