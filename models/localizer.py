"""What extract_cams needs of a network that localises classes, whatever it was trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor, nn

from models.networks.attention import Observer
from models.networks.backbone import Backbone
from models.networks.conformer import Conformer
from models.segmenters.segmenter import Segmenter


class Activations(NamedTuple):
    """Maps of one forward pass.

    Attributes:
        classes: (B, classes, h, w), before ReLU and before any propagation rule.
        background: (B, h, w) learned background map, not propagated; None for networks without one.
        earlier: further maps of the same shape and kind, of an earlier block or sampler, by the names in
            `Localizer.earlier`; the propagation rules of these names take them.
    """

    classes: Tensor
    background: Tensor | None = None
    earlier: Mapping[str, Tensor] = MappingProxyType({})


class Parts(NamedTuple):
    """What one forward pass of a classifier with attention computes.

    Attributes:
        features: (B, C, h, w) that its convolutional head reads.
        maps: (B, classes, h, w) of that head, before ReLU and coupling.
        logits: (B, classes), the sum of both branches'.
    """

    features: Tensor
    maps: Tensor
    logits: Tensor


class Localizer(nn.Module):
    """A network that gives activation maps.

    Attributes:
        backbone: what ImageNet weights load into; knows the normalisation (`mean`, `std`) that it expects.
        head: what is new and learns faster.
        stride: how many input pixels a cell of its maps spans.
        depth: transformer blocks that observers see; 0 for purely convolutional networks.
        tokens: class tokens before the patch tokens.
        pad_to: it pads images right and below to a multiple of so many pixels; 1: never. Mirror images are made of
            padded views, so that their padding lies left.
        fusion: how the maps of several scales become one, a name in `models.maps.FUSIONS`, where the network
            prescribes it; None leaves it to the knob.
        earlier: names of the further maps that it gives.
    """

    backbone: Backbone | Conformer
    head: nn.Module
    stride: int
    depth = 0
    tokens = 0
    pad_to = 1
    fusion: str | None = None
    earlier: tuple[str, ...] = ()

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Load ImageNet weights into the backbone.

        Raises:
            ValueError: they do not fit; all differences are listed.
        """
        self.backbone.load_pretrained(state)

    def segmenter(self) -> Segmenter | None:
        """The decoder that it has trained beside its maps, as a segmentation network; None without one."""
        return None

    def activations(self, images: Tensor, tags: Tensor, observers: Sequence[Observer] = ()) -> Activations:
        """Maps of normalised images (B, 3, H, W) with tags (B, classes) of 0 and 1, for networks that are told them."""
        raise TypeError(f"{type(self).__name__} gives no activation maps")


class AttentionClassifier(Localizer):
    """A classifier of tags with a convolutional head on features and a transformer branch beside them.

    Attributes:
        channels: of the features.
    """

    channels: int

    def parts(self, images: Tensor, observers: Sequence[Observer] = ()) -> Parts:
        """Everything that one forward pass of normalised images (B, 3, H, W) computes."""
        raise TypeError(f"{type(self).__name__} has no parts")

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to logits (B, classes) for the tag loss.

        Source: one loss on the sum of both branches (TransCAM, `published` and `released`).
        """
        return self.parts(images).logits

    def activations(self, images: Tensor, tags: Tensor, observers: Sequence[Observer] = ()) -> Activations:
        """Raw maps of normalised images (B, 3, H, W): no ReLU, no coupling; the tags are not looked at."""
        return Activations(self.parts(images, observers).maps)
