"""Transformer blocks on the maps of a pretrained convolutional trunk: the compact stand-in for a vision transformer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.networks.backbone import Backbone
from models.networks.encoding import Encoding
from models.networks.lite import EfficientNetLite
from models.networks.loading import load_trunk
from models.networks.similarity import SimilarityBlock


class TrunkEncoder(Backbone):
    """A trunk's last maps as tokens, and blocks whose attention starts as the similarity of these tokens.

    Blocks that start at random mix all places alike, which no small training undoes; similar places are alike anyway.
    The projection starts orthogonal, so that tokens start as what the pretrained trunk knows of their place. The
    trunk's padding tells places apart, so there is no table of positions, and a grid may have any size.

    Args:
        trunk: pretrained; its last maps have stride 16.
        dim: channels of a token.
        depth: blocks; `Encoding.aux` comes after the first one.
        heads: of each block.

    Attributes:
        dim: channels of a token; its two stages are the first and the last block.

    Source: ours, for the compact profile; the block is that of `models.transcam.hybrid`.
    """

    def __init__(self, trunk: EfficientNetLite, dim: int = 256, depth: int = 3, heads: int = 2) -> None:
        super().__init__()
        self.trunk = trunk
        self.down = nn.Conv2d(trunk.channels[-1], dim, 1)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList(SimilarityBlock(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.dim, self.channels, self.strides = dim, (dim, dim), (trunk.strides[-1],) * 2
        self.mean, self.std = trunk.mean, trunk.std
        nn.init.orthogonal_(self.down.weight.flatten(1))
        nn.init.zeros_(self.down.get_parameter("bias"))
        nn.init.trunc_normal_(self.class_token, std=0.02)

    def forward(self, images: Tensor) -> Encoding:
        """Normalised images (B, 3, H, W) to tokens on the trunk's grid of ceil(H / 16) x ceil(W / 16) cells."""
        maps = self.down(self.trunk(images)[-1])
        tokens = torch.cat([self.class_token.expand(images.shape[0], -1, -1), maps.flatten(2).transpose(1, 2)], dim=1)
        aux = tokens
        for number, block in enumerate(self.blocks):
            tokens = block(tokens)
            aux = tokens if number == 0 else aux
        tokens = self.norm(tokens)
        return Encoding(
            tokens[:, 0], *(some[:, 1:].transpose(1, 2).unflatten(2, maps.shape[2:]) for some in (tokens, aux))
        )

    def untrained(self) -> nn.Module:
        """What ImageNet weights do not cover: all but the trunk."""
        return nn.ModuleList([self.down, self.blocks, self.norm, nn.ParameterList([self.class_token])])

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Load the trunk's ImageNet weights.

        Raises:
            ValueError: they do not fit; all differences are listed.
        """
        load_trunk(self.trunk, state)


def lite0_vit() -> TrunkEncoder:
    """On the whole Lite0 trunk."""
    return TrunkEncoder(EfficientNetLite(0))


def lite0_early_vit() -> TrunkEncoder:
    """On the Lite0 trunk up to its first maps of stride 16, which see less of the image around each cell."""
    return TrunkEncoder(EfficientNetLite(0, depth=4))


def lite2_vit() -> TrunkEncoder:
    """On the whole Lite2 trunk."""
    return TrunkEncoder(EfficientNetLite(2))
