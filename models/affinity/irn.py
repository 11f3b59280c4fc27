"""Boundary branch of the inter-pixel relation network, and the affinities that follow from boundaries.

The released network has a second branch (displacement fields) for instance masks. It does not influence
semantic masks and shares only frozen features with this one, so it is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.affinity.affinitynet import AffinityLoss, affinity_loss
from models.affinity.knobs import Reading
from models.affinity.pairs import MAX_LABELS, Border, Neighbourhood, pair_masks, path_cells, reduce_label, shift
from models.build import trunk


class BoundaryBranch(nn.Module):
    """Class-boundary detector on the taps of a frozen trunk.

    Each tap: 1x1 convolution to 32 channels, group normalisation, upsampling to the grid of one tap, ReLU;
    then all are concatenated and a 1x1 convolution gives one logit.

    Args:
        channels: channels of each tap, finest first; (64, 256, 512, 1024, 2048) for ResNet-50.
        grid_tap: index of the tap whose size is the size of the output; 1 (stride 4) is `released`.
        width: channels of each projection.

    Source: Ahn, Cho & Kwak, CVPR 2019, section 4.1 and figure 3; normalisation from the released IRN code.
    """

    def __init__(self, channels: Sequence[int], grid_tap: int = 1, width: int = 32) -> None:
        super().__init__()
        self.grid_tap = grid_tap
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inside, width, 1, bias=False), nn.GroupNorm(4, width)) for inside in channels
        )
        self.classify = nn.Conv2d(width * len(channels), 1, 1)

    def forward(self, taps: Sequence[Tensor]) -> Tensor:
        """Taps (B, C_i, h_i, w_i) -> boundary logits (B, 1, h, w) on the grid of the chosen tap.

        Equal to the released upsampling by whole factors when the image sides are multiples of the coarsest
        stride (pad the image, never crop it).
        """
        grid = taps[self.grid_tap].shape[-2:]
        parts = []
        for project, tap in zip(self.project, taps, strict=True):
            part = project(tap)
            if part.shape[-2:] != grid:
                part = F.interpolate(part, size=grid, mode="bilinear", align_corners=False)
            parts.append(F.relu(part))
        logits: Tensor = self.classify(torch.cat(parts, 1))
        return logits


class _PathMax(torch.autograd.Function):
    """Maximum along the path of every pair, as a running maximum over shifted views.

    Only the position of the maximum on its path is kept for the backward pass, two bytes for a pair.
    """

    @staticmethod
    def forward(ctx: Any, boundary: Tensor, hood: Neighbourhood) -> Tensor:
        batch, h, w = boundary.shape
        highest = boundary.new_ones(batch, len(hood.offsets), h, w)
        winner = torch.zeros_like(highest if ctx.needs_input_grad[0] else highest[:0], dtype=torch.int16)
        for o, (source, _) in enumerate(hood.windows(h, w)):
            path = path_cells(*hood.offsets[o])
            best = boundary[:, *shift(source, *path[0])].clone()
            for k, cell in enumerate(path[1:], start=1):
                value = boundary[:, *shift(source, *cell)]
                if winner.numel():
                    winner[:, o, *source].masked_fill_(value > best, k)
                torch.maximum(best, value, out=best)
            highest[:, o, *source] = best
        ctx.save_for_backward(winner)
        ctx.hood = hood
        return highest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (winner,) = ctx.saved_tensors
        result = torch.zeros_like(grad[:, 0])
        for o, (source, _) in enumerate(ctx.hood.windows(*grad.shape[-2:])):
            for k, cell in enumerate(path_cells(*ctx.hood.offsets[o])):
                won = winner[:, o, *source] == k
                result[:, *shift(source, *cell)] += grad[:, o, *source] * won
        return result, None


def path_affinity(boundary: Tensor, hood: Neighbourhood) -> Tensor:
    """Affinities of all pairs: 1 - the highest boundary on the path between them.

    Args:
        boundary: (B, h, w) probabilities in [0, 1]; half precision is computed in float32.
        hood: the pairs.

    Returns:
        (B, n_offsets, h, w) in [0, 1], stencil layout, 0 where no pair exists; differentiable once.

    Source: Ahn, Cho & Kwak, CVPR 2019, eq. 3; paths of the released IRN code.
    """
    boundary = boundary.to(torch.promote_types(boundary.dtype, torch.float32))
    highest: Tensor = _PathMax.apply(boundary, hood)
    return 1 - highest


def boundary_loss(logits: Tensor, label: Tensor, hood: Neighbourhood, n_classes: int = 21) -> AffinityLoss:
    """Training loss of the boundary branch.

    Args:
        logits: (B, 1, h, w) boundary logits.
        label: (B, h, w) uint8 on the same grid; 0 background; labels of n_classes or more take part in no
            pair.
        hood: the pairs; radius 10 is `released` and `published`.
        n_classes: number of labels, background included.

    Returns:
        `total` = (L_pos + L_neg) / 2 with L_pos = bg/2 + fg/2 (`released`; the paper's sum has no outer 1/2),
        and the terms.

    Source: Ahn, Cho & Kwak, CVPR 2019, eq. 4.
    """
    affinity = path_affinity(torch.sigmoid(logits[:, 0].float()), hood)
    return affinity_loss(affinity, pair_masks(label, hood, n_classes))


class BoundaryAffinity(nn.Module):
    """IRN's boundary branch at stride 4 on a frozen backbone; affinities are 1 - the highest boundary on the way.

    Source: Ahn, Cho & Kwak, CVPR 2019, sections 3.3 and 4.1. The displacement branch does not change semantic masks
    and is left out.
    """

    stride = 4

    def __init__(self, backbone: str, reading: Reading = "released") -> None:
        super().__init__()
        self.backbone, self.reading = trunk(backbone).requires_grad_(False), reading
        if self.stride not in self.backbone.strides:
            raise ValueError(f"{backbone} has no map of stride {self.stride}, which the boundary branch works on")
        # The last of several equal strides that open the trunk, as in ResNet-50, where two taps have stride 4.
        grid_tap = max(number for number, stride in enumerate(self.backbone.strides) if stride == self.stride)
        self.head = BoundaryBranch(self.backbone.channels, grid_tap)

    def train(self, mode: bool = True) -> BoundaryAffinity:
        """Training mode for the branch alone."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to boundary logits (B, 1, ceil(H / 4), ceil(W / 4))."""
        with torch.no_grad():
            maps = self.backbone(images)
        return self.head(maps)

    def loss(self, logits: Tensor, labels: Tensor, radius: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The boundary loss of confident labels (B, H, W), and its terms.

        Source: Ahn, Cho & Kwak, CVPR 2019, eq. 4; `released` halves the sum, `published` does not.
        """
        labels = reduce_label(labels, self.stride)
        terms = boundary_loss(logits, labels, Neighbourhood(radius, "psa"), MAX_LABELS)
        factor = 1.0 if self.reading == "released" else 2.0
        return factor * terms.total, {"background": terms.bg, "foreground": terms.fg, "different": terms.neg}

    @torch.inference_mode()
    def affinity(self, images: Tensor, radius: int, border: Border) -> tuple[Tensor, Tensor | None]:
        """Path affinities (B, offsets, h, w) in [0, 1], and the boundary (B, h, w) in [0, 1].

        The boundary is the sigmoid of the mean logit of each image and its mirror image, as in the released code.
        """
        logits = (self(images) + self(images.flip(3)).flip(3)) / 2
        boundary = logits[:, 0].float().sigmoid()
        return path_affinity(boundary, Neighbourhood(radius, border)), boundary
