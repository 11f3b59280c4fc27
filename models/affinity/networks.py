"""Affinity networks on any backbone: what train_affinity trains and refine_cams applies."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.affinity.affinitynet import LOSS_WEIGHTS, WIDTHS, AffinityNet, Reading, affinity_loss, feature_affinity
from models.affinity.irn import BoundaryBranch, boundary_loss, path_affinity
from models.affinity.pairs import Border, Neighbourhood, pair_masks, reduce_label
from models.networks.backbones import BACKBONES

MAX_LABELS = 255  # labels from here on take part in no pair


class FeatureAffinity(nn.Module):
    """AffinityNet: features at stride 8 whose distance is the affinity.

    The backbone learns too. On ResNet-38 the three taps of the paper are used; on other trunks the last stage of
    each stride from 8 on, brought to the grid of stride 8 (`reconstructed`).

    Source: Ahn & Kwak, CVPR 2018, section 3.2.
    """

    stride = 8

    def __init__(self, backbone: str, reading: Reading = "released") -> None:
        super().__init__()
        self.backbone, self.reading = BACKBONES[backbone](), reading
        self.taps = [number for number, stride in enumerate(self.backbone.strides) if stride >= self.stride][:2]
        self.taps.append(len(self.backbone.strides) - 1)
        channels = [self.backbone.channels[tap] for tap in self.taps]
        self.head = AffinityNet(channels, WIDTHS[reading], group_norm=backbone != "resnet38")

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


class BoundaryAffinity(nn.Module):
    """IRN's boundary branch at stride 4 on a frozen backbone; affinities are 1 - the highest boundary on the way.

    Source: Ahn, Cho & Kwak, CVPR 2019, sections 3.3 and 4.1. The displacement branch does not change semantic masks
    and is left out.
    """

    stride = 4

    def __init__(self, backbone: str, reading: Reading = "released") -> None:
        super().__init__()
        self.backbone, self.reading = BACKBONES[backbone]().requires_grad_(False), reading
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


AFFINITY_NETWORKS: dict[str, type[FeatureAffinity] | type[BoundaryAffinity]] = {
    "affinitynet": FeatureAffinity,
    "irn": BoundaryAffinity,
}
