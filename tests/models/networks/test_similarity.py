"""Blocks on pretrained features: attention that starts as similarity, tokens that start as the trunk's."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from models.networks.attention import head_mean
from models.networks.lite import EfficientNetLite
from models.networks.similarity import TEMPERATURE, SimilarityBlock
from models.networks.trunk_encoder import TrunkEncoder


def test_attention_of_a_new_block_is_the_similarity_of_its_tokens() -> None:
    torch.manual_seed(0)
    block, tokens, seen = SimilarityBlock(dim=32, heads=1), torch.randn(2, 10, 32), []
    block(tokens, 0, [lambda _, queries, keys: seen.append(head_mean(queries, keys))])
    normed = block.norm1(tokens)
    centred = functional.normalize(normed - normed[:, 1:].mean(1, keepdim=True), dim=-1)
    torch.testing.assert_close(seen[0], (centred @ centred.mT / TEMPERATURE).softmax(-1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (50, 75)])
def test_tokens_of_a_new_encoder_are_those_of_the_trunk(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    encoder = TrunkEncoder(EfficientNetLite(0, depth=4), dim=16).eval()
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        encoding, maps = encoder(images), encoder.trunk(images)[-1]
        projected = encoder.down(maps)
    assert encoding.token.shape == (2, 16) and encoding.final.shape == (2, 16, *maps.shape[2:])
    torch.testing.assert_close(encoding.aux, projected)
    normed = functional.layer_norm(projected.movedim(1, -1), (16,)).movedim(-1, 1)
    torch.testing.assert_close(encoding.final, normed)
    weight = encoder.down.weight.flatten(1)
    torch.testing.assert_close(weight @ weight.T, torch.eye(16), atol=1e-5, rtol=0)


def test_every_part_of_the_encoder_learns_within_two_steps() -> None:
    torch.manual_seed(0)
    encoder = TrunkEncoder(EfficientNetLite(0), dim=16).train()
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    for _ in range(2):  # what starts at zero hides what lies behind it for one step
        optimiser.zero_grad()
        encoding = encoder(torch.randn(2, 3, 64, 64))
        (encoding.final.square().mean(dim=(2, 3))[:, 0].sum() + encoding.token[:, 1].sum()).backward()
        optimiser.step()
    learning = {name: parameter.grad for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert [name for name, gradient in learning.items() if gradient is None or not gradient.any()] == []
