"""Reading attention while a network runs: what rules need is accumulated block by block; nothing goes to disk.

A network that can be read calls an observer once for each transformer block, with the block's number (from 0), its
queries and its keys. Queries come scaled, so that attention is softmax(queries @ keys^T) over the keys; row = query.
The network's own forward pass may then use fused attention whatever is observed.
"""

from __future__ import annotations

from collections.abc import Callable, Container

import torch
from torch import Tensor
from torch.nn import functional

Observer = Callable[[int, Tensor, Tensor], None]


def head_mean(queries: Tensor, keys: Tensor) -> Tensor:
    """Attention (B, T, T) of queries and keys (B, heads, T, d), in float32, averaged over heads; rows sum to 1."""
    total = torch.zeros((), device=queries.device)
    with torch.autocast(queries.device.type, enabled=False):
        for own_queries, own_keys in zip(queries.float().unbind(1), keys.float().unbind(1), strict=True):
            total = total + (own_queries @ own_keys.mT).softmax(dim=-1)  # one (B, T, T) matrix besides the sum
    return total / queries.shape[1]


class AttentionSum:
    """Running sum over blocks of the head-mean attention: one (B, T, T) buffer, whatever the depth.

    Source: TransCAM's sum of all blocks (Li et al. 2023, eq. 3-4; `published`).
    """

    def __init__(self, blocks: Container[int] | None = None) -> None:
        """`blocks`: numbers of the blocks that count; None for all."""
        self.blocks, self.count = blocks, 0
        self.total: Tensor | None = None

    def __call__(self, block: int, queries: Tensor, keys: Tensor) -> None:
        """Add one block."""
        if self.blocks is None or block in self.blocks:
            attention = head_mean(queries, keys)
            self.total = attention if self.total is None else self.total + attention
            self.count += 1

    def mean(self, view: int) -> Tensor:
        """Mean over the blocks seen, of one view of the batch, (T, T).

        Raises:
            ValueError: none of the blocks that count was seen.
        """
        if self.total is None:
            raise ValueError(f"no attention was observed for blocks {self.blocks}")
        return self.total[view] / self.count

    def couple(self, maps: Tensor) -> Tensor:
        """The sum's patch attention times maps (B, C, N), the class tokens before the N left out; as TransCAM, eq. 5.

        Raises:
            ValueError: none of the blocks that count was seen.
        """
        if self.total is None:
            raise ValueError(f"no attention was observed for blocks {self.blocks}")
        tokens = self.total.shape[-1] - maps.shape[-1]
        return maps @ self.total[:, tokens:, tokens:].mT


class AttentionRollout:
    """Attention rollout: the product over blocks of (attention + identity) / 2 with rows summing to 1, (B, T, T).

    Source: Abnar & Zuidema, ACL 2020 (`published`), head mean.
    """

    def __init__(self) -> None:
        self.product: Tensor | None = None

    def __call__(self, block: int, queries: Tensor, keys: Tensor) -> None:
        """Multiply by one block from the left."""
        attention = head_mean(queries, keys)
        step = (attention + torch.eye(attention.shape[-1], device=attention.device)) / 2
        with torch.autocast(step.device.type, enabled=False):
            self.product = step if self.product is None else step @ self.product


class AttentionCoupling:
    """Attention applied to maps: keeps queries and keys, and attends with the maps as values; differentiable.

    Equal to `AttentionSum` times the maps (`reconstructed`). Maps are padded to the width of a head, so that kernels
    that never write attention out accept them.
    """

    def __init__(self) -> None:
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def __call__(self, block: int, queries: Tensor, keys: Tensor) -> None:
        """Keep one block's queries and keys."""
        self.pairs.append((queries, keys))

    def couple(self, maps: Tensor) -> Tensor:
        """Sum over blocks of head-mean patch attention times maps (B, C, N), the class tokens before the N left out."""
        tokens = self.pairs[0][1].shape[2] - maps.shape[2]
        return torch.cat([self._couple(part, tokens) for part in maps.split(self.pairs[0][0].shape[3], dim=1)], dim=1)

    def _couple(self, maps: Tensor, tokens: int) -> Tensor:
        """The same for at most as many maps as a head is wide."""
        coupled = torch.zeros_like(maps)
        for queries, keys in self.pairs:
            _, heads, _, width = queries.shape
            values = functional.pad(maps.mT, (0, width - maps.shape[1], tokens, 0))  # class tokens carry nothing
            spread = values[:, None].expand(-1, heads, -1, -1).to(queries.dtype)
            attended = functional.scaled_dot_product_attention(queries[:, :, tokens:], keys, spread, scale=1.0)
            coupled = coupled + attended[..., : maps.shape[1]].mean(dim=1).mT
        return coupled
