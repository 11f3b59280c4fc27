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
        background: (B, h, w) of networks that learn a background map, as it competes: no rule moves it. Else None.
        earlier: further maps of the same shape and kind by name, of networks that have them: those of an earlier block
            or of earlier stages, which rules of these names take (`EARLIER` in `models.propagation.knobs`).
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
        softmax: its maps are logits of background and all classes, which compete in a softmax.
    """

    backbone: Backbone | Conformer
    head: nn.Module
    stride: int
    depth = 0
    tokens = 0
    softmax = False

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
