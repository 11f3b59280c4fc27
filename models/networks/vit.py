"""Vision transformers of timm for images of any size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from models.networks.backbone import Backbone
from models.networks.encoding import Encoding
from models.networks.loading import check_and_load
from models.networks.resnet50 import ResNet50
from models.registry import VIT_TAG

VIT_HEADS = ("head.*",)
"""Entries of timm's checkpoints that the encoder leaves out."""


class VitEncoder(Backbone):
    """A vision transformer of timm for images of any size; entries are named as in timm's checkpoints.

    Args:
        vit: gives patch embedding, tokens, position table (which does not learn, `released`), blocks and last
            normalisation.
        aux_block: index of the block whose output is `Encoding.aux`; the tenth of twelve is `released`.

    Attributes:
        dim: channels of a token; its two stages are the earlier and the last block.

    Source: released code of ToCo (`model/backbone/vit.py`): `released`.
    """

    def __init__(self, vit: VisionTransformer, aux_block: int = -3) -> None:
        super().__init__()
        assert vit.cls_token is not None
        assert vit.pos_embed is not None
        self.patch_embed, self.blocks, self.norm = vit.patch_embed, vit.blocks, vit.norm
        self.cls_token, self.pos_embed = vit.cls_token, vit.pos_embed.requires_grad_(False)
        self.side = round((vit.pos_embed.shape[1] - 1) ** 0.5)
        self.aux_block = aux_block % len(vit.blocks)
        self.dim: int = vit.embed_dim
        stride = vit.patch_embed.patch_size[0]
        self.channels, self.strides = (self.dim, self.dim), (stride, stride)
        # The ViT weights were trained with 0.5; ToCo feeds them ImageNet statistics all the same.
        self.mean, self.std = ResNet50.mean, ResNet50.std

    def forward(self, images: Tensor) -> Encoding:
        """Normalised images (B, 3, H, W) to tokens on a grid of floor(H / patch) x floor(W / patch) cells."""
        patches = self.patch_embed.proj(images)
        grid = patches.shape[2:]
        tokens = torch.cat([self.cls_token.expand(images.shape[0], -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        tokens = tokens + self._positions(*grid)
        aux = tokens
        for number, block in enumerate(self.blocks):
            tokens = block(tokens)
            if number == self.aux_block:
                aux = tokens
        tokens = self.norm(tokens)
        return Encoding(tokens[:, 0], *(some[:, 1:].transpose(1, 2).unflatten(2, grid) for some in (tokens, aux)))

    def untrained(self) -> nn.Module:
        """What ImageNet weights do not cover: nothing."""
        return nn.ModuleList()

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Load ImageNet weights.

        Raises:
            ValueError: they do not fit; all differences are listed.
        """
        check_and_load(self, state, VIT_HEADS)

    def _positions(self, height: int, width: int) -> Tensor:
        """The position table (1, 1 + height * width, dim), patches resized bicubically.

        timm's own resizing smooths and has another kernel; the released code does neither.
        """
        if (height, width) == (self.side, self.side):
            return self.pos_embed
        table = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (self.side, self.side))
        resized = functional.interpolate(table, (height, width), mode="bicubic", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


def vit_base() -> VitEncoder:
    """ToCo's ViT-B/16."""
    vit: Any = timm.create_model(VIT_TAG, pretrained=False, num_classes=0)
    return VitEncoder(vit)


def vit_test() -> VitEncoder:
    """For tests: 64 pixels, patches of 8, four blocks of three heads."""
    return VitEncoder(VisionTransformer(64, 8, embed_dim=48, depth=4, num_heads=3, num_classes=0))
