"""A transformer block for the maps of a pretrained trunk: its attention starts as the similarity of its tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.attention import Observer

TEMPERATURE = 0.2


class SimilarityBlock(nn.Module):
    """A pre-norm transformer block whose attention starts as the similarity of its tokens.

    Queries and keys are unit vectors of centred tokens: attention is softmax(cosine / temperature). Both projections
    start as the same orthogonal matrix, and what the block mixes into its tokens starts at zero, so that a pretrained
    trunk's features attend to their like from the first step on, and training moves on from there (`reconstructed`).
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_ratio * dim), nn.GELU(), nn.Linear(mlp_ratio * dim, dim))
        self.log_scale = nn.Parameter(torch.full((heads, 1, 1), 1 / TEMPERATURE).log())
        nn.init.orthogonal_(self.query.weight)
        with torch.no_grad():
            self.key.weight.copy_(self.query.weight)
        for last in (*self.out.parameters(), *self.mlp[2].parameters()):
            nn.init.zeros_(last)

    def forward(self, tokens: Tensor, number: int = 0, observers: Sequence[Observer] = ()) -> Tensor:
        """Tokens (B, 1 + N, dim), the class token first, to the same shape; observers are told the block's number."""
        normed = self.norm1(tokens)
        centred = normed - normed[:, 1:].mean(dim=1, keepdim=True)
        queries = functional.normalize(self._split(self.query(centred)), dim=-1) * self.log_scale.exp()
        keys = functional.normalize(self._split(self.key(centred)), dim=-1)
        for observe in observers:
            observe(number, queries, keys)
        attended = functional.scaled_dot_product_attention(queries, keys, self._split(self.value(normed)), scale=1.0)
        tokens = tokens + self.out(attended.transpose(1, 2).flatten(2))
        return tokens + self.mlp(self.norm2(tokens))

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, T, dim) to (B, heads, T, dim / heads)."""
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)
