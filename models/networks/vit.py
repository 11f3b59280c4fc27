"""Vision transformers of timm for images of any size, alone or on the maps of a convolutional trunk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from models.networks.backbone import Backbone
from models.networks.lite0 import EfficientNetLite0
from models.networks.loading import check_and_load, load_trunk
from models.networks.resnet50 import ResNet50
from models.registry import VIT_TAG

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

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Load ImageNet weights: of the whole transformer, or of the stem where there is one.

        Raises:
            ValueError: they do not fit; all differences are listed.
        """
        if self.stem is None:
            check_and_load(self, state, VIT_HEADS)
        else:
            load_trunk(self.stem, state)

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


def vit_base() -> VitEncoder:
    """ToCo's ViT-B/16."""
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


def lite0_vit() -> VitEncoder:
    """Blocks on the whole Lite0 trunk."""
    return _lite0_vit(6)


def lite0_early_vit() -> VitEncoder:
    """Blocks on the trunk up to its first maps of stride 16."""
    return _lite0_vit(4)


def vit_test() -> VitEncoder:
    """For tests: 64 pixels, patches of 8."""
    return VitEncoder(_small_vit(64, 8, 48))
