"""The one-stage network of ToCo: a vision transformer, two classifiers of its patch tokens, and a decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from models.localizer import Activations, Localizer
from models.maps import resize
from models.networks.attention import Observer
from models.networks.backbones import Backbone, EfficientNetLite0, ResNet50
from models.networks.loading import VIT_TAG, check_and_load, load_trunk
from models.segmenters.segmenter import Segmenter

VIT_HEADS = ("head.*",)
"""Entries of timm's checkpoints that the encoder leaves out."""


class Encoding(NamedTuple):
    """What one pass through the encoder gives.

    Attributes:
        token: (B, dim) class token after the last normalisation.
        final: (B, dim, h, w) patch tokens after the last normalisation.
        aux: (B, dim, h, w) patch tokens after an earlier block, not normalised.
    """

    token: Tensor
    final: Tensor
    aux: Tensor


class Output(NamedTuple):
    """All that the losses on one view need, from one encoding.

    Attributes:
        encoding: the encoder's output; class activation maps follow from it at almost no cost.
        logits: (B, K) of the classifier on the last block.
        aux_logits: (B, K) of the classifier on the earlier block.
        masks: (B, K + 1, h, w) logits of the decoder.
    """

    encoding: Encoding
    logits: Tensor
    aux_logits: Tensor
    masks: Tensor


class VitEncoder(Backbone):
    """A vision transformer of timm for images of any size; entries are named as in timm's checkpoints.

    Args:
        vit: gives patch embedding, tokens, position table, blocks and last normalisation.
        stem: turns images into the maps that the patch embedding expects; None for images themselves.
        learn_positions: whether the position table learns; frozen is `released`.
        aux_block: index of the block whose output is `Encoding.aux`; the tenth of twelve is `released`.

    Attributes:
        dim: channels of a token; its two stages are the earlier and the last block.

    Source: released code of ToCo (`model/backbone/vit.py`): `released`.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        stem: EfficientNetLite0 | None = None,
        learn_positions: bool = False,
        aux_block: int = -3,
    ) -> None:
        super().__init__()
        assert vit.cls_token is not None
        assert vit.pos_embed is not None
        self.stem = stem
        self.patch_embed, self.blocks, self.norm = vit.patch_embed, vit.blocks, vit.norm
        self.cls_token, self.pos_embed = vit.cls_token, vit.pos_embed.requires_grad_(learn_positions)
        self.aux_block = aux_block % len(vit.blocks)
        self.dim: int = vit.embed_dim
        stride = vit.patch_embed.patch_size[0] * (1 if stem is None else stem.strides[-1])
        self.channels, self.strides = (self.dim, self.dim), (stride, stride)
        # The ViT weights were trained with 0.5; ToCo feeds them ImageNet statistics all the same.
        self.mean, self.std = (stem or ResNet50).mean, (stem or ResNet50).std

    def forward(self, images: Tensor) -> Encoding:
        """Normalised images (B, 3, H, W) to tokens on a grid of floor(H / patch) x floor(W / patch) cells.

        With a stem the grid is that of its maps, ceil(H / 16) x ceil(W / 16).
        """
        maps = images if self.stem is None else self.stem(images)[-1]
        patches = self.patch_embed.proj(maps)
        grid = patches.shape[2:]
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches.flatten(2).mT], dim=1)
        tokens = tokens + self._positions(*grid)
        aux = tokens
        for number, block in enumerate(self.blocks):
            tokens = block(tokens)
            if number == self.aux_block:
                aux = tokens
        tokens = self.norm(tokens)
        return Encoding(tokens[:, 0], *(some[:, 1:].mT.unflatten(2, grid) for some in (tokens, aux)))

    def untrained(self) -> nn.Module:
        """What ImageNet weights do not cover: all but the stem, where there is one; nothing of a whole transformer."""
        if self.stem is None:
            return nn.ModuleList()
        return nn.ModuleList(
            [self.patch_embed, self.blocks, self.norm, nn.ParameterList([self.cls_token, self.pos_embed])]
        )

    def _positions(self, height: int, width: int) -> Tensor:
        """The position table (1, 1 + height * width, dim), patches resized bicubically.

        timm's own resizing smooths and has another kernel; the released code does neither.
        """
        side = round((self.pos_embed.shape[1] - 1) ** 0.5)
        if (height, width) == (side, side):
            return self.pos_embed
        table = self.pos_embed[:, 1:].mT.unflatten(2, (side, side))
        resized = functional.interpolate(table, (height, width), mode="bicubic", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).mT], dim=1)


class LargeFov(nn.Sequential):
    """Decoder of three convolutions without bias, two of them 3x3 with dilation 5.

    Source: released code of ToCo (`model/decoder/conv_head.py`), after DeepLab-LargeFOV: `released`.
    """

    def __init__(self, dim: int, labels: int, width: int = 512) -> None:
        super().__init__(
            nn.Conv2d(dim, width, 3, padding=5, dilation=5, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=5, dilation=5, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, labels, 1, bias=False),
        )


class ToCoNetwork(Localizer):
    """Encoder, a classifier of its last and one of an earlier block, and a decoder: what remains at inference.

    The heads of class token contrast exist only in training, see `contrast.ContrastHeads`.

    Args:
        encoder: a name in `ENCODERS`.
        classes: K, without background.
        width: channels inside the decoder.

    Attributes:
        backbone: the encoder.
        head, aux_head: classifiers of the last and of the earlier block.
        decoder: segments.

    Source: Ru et al., CVPR 2023 (ToCo); details from the released code (`model/model_seg_neg.py`): `released`.
    """

    backbone: VitEncoder
    head: nn.Conv2d
    earlier = ("aux",)

    def __init__(self, encoder: str, classes: int, width: int = 512) -> None:
        super().__init__()
        self.backbone = ENCODERS[encoder]()
        dim, self.mean, self.std = self.backbone.dim, self.backbone.mean, self.backbone.std
        self.stride = self.backbone.strides[-1]
        self.head = nn.Conv2d(dim, classes, 1, bias=False)
        self.aux_head = nn.Conv2d(dim, classes, 1, bias=False)
        self.decoder = LargeFov(dim, classes + 1, width)

    def forward(self, images: Tensor) -> Output:
        """Normalised images (B, 3, H, W) to all that the losses on them need, with one encoding."""
        encoding: Encoding = self.backbone(images)
        return Output(encoding, *self.logits(encoding), self.decoder(encoding.final))

    def logits(self, encoding: Encoding) -> tuple[Tensor, Tensor]:
        """Class logits (B, K) of the last and of the earlier block, from the largest value of every channel."""
        maps = (self.head, encoding.final), (self.aux_head, encoding.aux)
        first, second = (head(tokens.amax(dim=(2, 3), keepdim=True)).flatten(1) for head, tokens in maps)
        return first, second

    def cams(self, encoding: Encoding) -> tuple[Tensor, Tensor]:
        """Class activation maps (B, K, h, w) of the last and of the earlier block, before ReLU."""
        return self.head(encoding.final), self.aux_head(encoding.aux)

    def stacked_cams(self, images: Tensor) -> Tensor:
        """Maps (B, 2K, h, w) of images, the last block's first; the decoder does not run."""
        return torch.cat(self.cams(self.backbone(images)), dim=1)

    def activations(self, images: Tensor, tags: Tensor, observers: Sequence[Observer] = ()) -> Activations:
        """Raw maps of normalised images (B, 3, H, W) and those of the earlier block; tags are not looked at."""
        final, aux = self.cams(self.backbone(images))
        return Activations(final, earlier={"aux": aux})


class ToCoSegmenter(Segmenter):
    """The decoder that a `ToCoNetwork` trained beside its classifiers, as a segmentation network."""

    def __init__(self, network: ToCoNetwork) -> None:
        super().__init__()
        self.backbone, self.head = network.backbone, network.decoder
        self.mean, self.std = network.mean, network.std

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to logits (B, K + 1, H, W)."""
        encoding: Encoding = self.backbone(images)
        return resize(self.head(encoding.final), images.shape[2:])


def _vit_base() -> VitEncoder:
    vit: Any = timm.create_model(VIT_TAG, pretrained=False, num_classes=0)
    return VitEncoder(vit)


def _lite0_vit(stages: int) -> VitEncoder:
    """Four blocks of 192 channels on maps of EfficientNet-Lite0 of stride 16, whose patches are single cells.

    Only the trunk has ImageNet weights (`encoder.stem`), so positions learn. Of the trunk, what has stride 16 learns.

    Args:
        stages: of the trunk; 4 end at its first maps of stride 16, which see less of the image around each cell.
    """
    stem = EfficientNetLite0(stages)
    return VitEncoder(_small_vit(14, 1, 192, in_chans=stem.channels[-1]), stem, learn_positions=True)


def _small_vit(side: int, patch: int, dim: int, **options: Any) -> VisionTransformer:
    """Four blocks of three heads."""
    return VisionTransformer(side, patch, embed_dim=dim, depth=4, num_heads=3, num_classes=0, **options)


ENCODERS: dict[str, Callable[[], VitEncoder]] = {
    "vit_base": _vit_base,
    "lite0_vit": lambda: _lite0_vit(6),
    "lite0_early_vit": lambda: _lite0_vit(4),
    "vit_test": lambda: VitEncoder(_small_vit(64, 8, 48)),
}
"""Encoders by name; `vit_test` is for tests (64 pixels, patches of 8)."""


def load_encoder(encoder: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load ImageNet weights into an encoder: of the whole transformer, or of the stem where there is one.

    Raises:
        ValueError: they do not fit; all differences are listed.
    """
    assert isinstance(encoder, VitEncoder)
    if encoder.stem is None:
        check_and_load(encoder, state, VIT_HEADS)
    else:
        load_trunk(encoder.stem, state)
