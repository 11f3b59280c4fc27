"""A compact Conformer-like classifier for CPUs: a transformer branch coupled to a pretrained convolutional trunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from models.localizer import AttentionClassifier, Parts
from models.networks.attention import Observer
from models.networks.lite import EfficientNetLite
from models.networks.similarity import SimilarityBlock


class HybridClassifier(AttentionClassifier):
    """EfficientNet-Lite0 with a transformer branch: Conformer's coupling, on the trunk's three stages of stride 16.

    After each of these stages the features go down to the tokens (1x1 convolution, layer norm), a block mixes the
    tokens, and they go up again (1x1 convolution that starts at zero) into the features that the next stage reads.
    The CAM head reads the last features, the class token has a head of its own, and the tag loss sees the sum of both
    logits, as in TransCAM.

    Source: coupling Peng et al., ICCV 2021, heads Li et al. (TransCAM); on this trunk `reconstructed`.
    """

    tokens = 1
    taps = (3, 4, 5)  # the trunk's stages of stride 16

    def __init__(
        self, classes: int, dropout: float = 0.0, dim: int = 256, heads: int = 2, size: Literal[0, 2] = 0
    ) -> None:
        super().__init__()
        self.backbone: EfficientNetLite = EfficientNetLite(size)
        self.stride = self.backbone.strides[-1]
        self.depth = len(self.taps)
        widths = [self.backbone.channels[tap] for tap in self.taps]
        self.channels = widths[-1]
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.down = nn.ModuleList(nn.Conv2d(width, dim, 1, bias=False) for width in widths)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in widths)
        self.blocks = nn.ModuleList(SimilarityBlock(dim, heads) for _ in widths)
        self.up = nn.ModuleList(nn.Conv2d(dim, width, 1) for width in widths)
        self.norm, self.dropout = nn.LayerNorm(dim), nn.Dropout(dropout)
        self.map_head = nn.Conv2d(widths[-1], classes, 1, bias=False)
        self.token_head = nn.Linear(dim, classes)
        nn.init.trunc_normal_(self.class_token, std=0.02)
        for down, up in zip(self.down, self.up, strict=True):
            nn.init.orthogonal_(down.get_parameter("weight"))
            for parameter in up.parameters():
                nn.init.zeros_(parameter)

    @property
    def head(self) -> nn.ModuleList:  # type: ignore[override]
        """The two layers that read classes; their parameters stay where they are."""
        return nn.ModuleList([self.map_head, self.token_head])

    def features(self, images: Tensor, observers: Sequence[Observer] = ()) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 3, H, W) to the last features (B, 1280, h, w) and the class token (B, dim)."""
        features = images
        tokens = self.class_token.expand(len(images), -1, -1)
        for number, stage in enumerate(self.backbone.stages()):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= self.backbone.frozen_stages):
                features = stage(features)
            if number in self.taps:
                features, tokens = self._exchange(number - self.taps[0], features, tokens, observers)
        return features, self.norm(tokens[:, 0])

    def _exchange(
        self, number: int, features: Tensor, tokens: Tensor, observers: Sequence[Observer]
    ) -> tuple[Tensor, Tensor]:
        """One block: features down to the tokens, attention, tokens up to the features."""
        patches = self.norms[number](self.down[number](features).flatten(2).mT)
        before = patches if tokens.shape[1] == 1 else tokens[:, 1:] + patches
        tokens = self.blocks[number](torch.cat([tokens[:, :1], before], dim=1), number, observers)
        grid = tokens[:, 1:].mT.unflatten(2, features.shape[2:])
        return features + self.up[number](grid), tokens

    def parts(self, images: Tensor, observers: Sequence[Observer] = ()) -> Parts:
        """Everything that one forward pass of normalised images (B, 3, H, W) computes, on the grid of stride 16."""
        features, class_token = self.features(images, observers)
        pooled = self.dropout(features.mean(dim=(2, 3)))  # the head has no bias: pooling before it is the same
        logits = self.map_head(pooled[..., None, None]).flatten(1) + self.token_head(class_token)
        return Parts(features, self.map_head(features), logits)
