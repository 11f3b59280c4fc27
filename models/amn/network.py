"""The activation manipulation network (AMN, Lee et al., CVPR 2022): seeds from a network trained on pixel labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.amn.balanced_seed_loss import balanced_seed_loss
from models.amn.knobs import SeedLossKnobs
from models.amn.conditioning import ConditionedHead
from models.localizer import Activations, Localizer
from models.maps import EPSILON, place
from models.networks.attention import Observer
from models.build import trunk
from models.networks.backbone import StagedBackbone

STEM = ("conv1", "conv_stem", "bn1")


class AmnNetwork(Localizer):
    """A backbone and a head that knows the image's tags; everything learns but the stem.

    ResNet-38 keeps the frozen parts it has everywhere else.

    Attributes:
        head: the new layers, which learn faster.
        stride: input pixels per cell of the logits; 16, on ResNet-38 8.

    Source: Lee et al., CVPR 2022 (`published`); frozen parts and head of the `released` code.
    """

    softmax = True

    def __init__(self, backbone: str, classes: int) -> None:
        super().__init__()
        self.backbone = trunk(backbone)
        self.head = ConditionedHead("aspp", self.backbone.channels[-1], classes)
        self.stride = self.backbone.strides[-1]
        if isinstance(self.backbone, StagedBackbone):
            self.backbone.frozen_stages = 0
            for name, part in self.backbone.named_children():
                part.requires_grad_(name not in STEM)

    def forward(self, images: Tensor, tags: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) and tags (B, classes) to logits (B, 1+classes, ~H / stride, ~W / stride)."""
        return self.head(self.backbone(images)[-1], tags)

    def loss(self, logits: Tensor, labels: Tensor, knobs: SeedLossKnobs) -> tuple[Tensor, dict[str, Tensor]]:
        """The balanced seed loss of labels (B, H, W; 0, 1..C, 255) taken at the logits' grid, and its two sides."""
        terms = balanced_seed_loss(logits, nearest(labels, logits.shape[-2:]), knobs)
        return terms.total, {"background": terms.bg, "foreground": terms.fg}

    def activations(self, images: Tensor, tags: Tensor, observers: Sequence[Observer] = ()) -> Activations:
        """Logits of normalised images (B, 3, H, W) with tags (B, classes); observers have nothing to see."""
        logits = self(images, tags)
        return Activations(logits[:, 1:], logits[:, 0])


def nearest(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Resize label maps by taking, for each new cell, the pixel under its centre.

    Args:
        labels: (..., H, W) of any type.
        size: new height and width.

    Returns:
        (..., *size); for a whole factor f rows and columns f // 2, f // 2 + f, ...

    Source: AMN reduces labels this way (`released`); resizing by corners would shift them by half a cell.
    """
    rows, columns = (
        (2 * torch.arange(new, device=labels.device) + 1) * old // (2 * new)
        for old, new in zip(labels.shape[-2:], size, strict=True)
    )
    return labels[..., rows[:, None], columns]


def fuse_logits(
    logits: Sequence[Tensor],
    size: tuple[int, int],
    extents: Sequence[tuple[int, int]],
    class_ids: Sequence[int],
    initial: Tensor | None = None,
) -> Tensor:
    """One map for the background and each present class from the logits of several scales.

    The mean over scales goes through softmax over all channels, present or not; then each map is stretched to [0, 1].

    Args:
        logits: one (1+C, h_i, w_i) map per scale, mirror images already merged.
        size: height and width of the result.
        extents: for each scale the height and width that its grid covers, in pixels of the result; the released code
            takes `size` for all.
        class_ids: 1-based ids of the present classes.
        initial: labels (H', W') of any size that the network was trained on, 0 background. With them only the
            foreground and ignored pixels of these labels are stretched and the others keep their probability, so the
            initial labels help to decide (`released`). None stretches everywhere (`reconstructed`).

    Returns:
        (1+K, H, W) float32 in [0, 1]; channel 0 background, channel k class `class_ids[k-1]`.

    Source: `released` AMN code; the constant in the stretching is 1e-5 there too.
    """
    total = torch.stack([place(grid.float(), e, size) for grid, e in zip(logits, extents, strict=True)]).mean(0)
    maps = total.softmax(0)[[0, *class_ids]]
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    stretched = (maps - low) / (high - low + EPSILON)
    return stretched if initial is None else torch.where(nearest(initial, size) != 0, stretched, maps)
