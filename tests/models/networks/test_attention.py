"""Attention as observers accumulate it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.networks.attention import AttentionCoupling, AttentionRollout, AttentionSum
from models.propagation.apply import rectified
from models.propagation.rule import Observation
from tests.support.propagation import moved_by, random_maps


def queries_and_keys(block: int, size: int = 13) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(block)
    return torch.randn(1, 3, size, 4, generator=generator), torch.randn(1, 3, size, 4, generator=generator)


def test_rollout_against_a_loop() -> None:
    observer, product = AttentionRollout(), np.eye(13)
    for block in range(4):
        queries, keys = queries_and_keys(block)
        observer(block, queries, keys)
        heads = [np.exp(q @ k.T) for q, k in zip(queries[0].double().numpy(), keys[0].double().numpy(), strict=True)]
        mean = sum(head / head.sum(1, keepdims=True) for head in heads) / 3
        mixed = mean + np.eye(13)
        product = mixed / mixed.sum(1, keepdims=True) @ product
    assert observer.product is not None
    maps = random_maps(0, 2, 12)
    found = moved_by("rollout", maps, Observation(rollout=observer.product[0, 1:, 1:]))
    expected = rectified(maps).numpy() @ product[1:, 1:].T
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_transcam_times_the_blocks_is_the_coupling_without_a_matrix() -> None:
    total, coupling = AttentionSum(), AttentionCoupling()
    for block in range(4):
        for observer in (total, coupling):
            observer(block, *queries_and_keys(block))
    maps = random_maps(0, 2, 12, torch.float32)
    coupled = moved_by("transcam", maps, Observation(total.mean(0)[1:, 1:]))
    torch.testing.assert_close(4 * coupled, coupling.couple(maps[None])[0])
