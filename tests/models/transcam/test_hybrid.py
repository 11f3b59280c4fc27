"""The compact hybrid: a trunk that starts as pretrained, any size."""

from __future__ import annotations

import torch

from models.cam.classifier import CamClassifier, tag_loss
from models.networks.attention import AttentionSum
from models.transcam.hybrid import HybridClassifier


def test_new_branch_leaves_the_trunk_alone() -> None:
    torch.manual_seed(0)
    hybrid, plain = HybridClassifier(3).eval(), CamClassifier("efficientnet_lite0", 3).eval()
    plain.backbone.load_state_dict(hybrid.backbone.state_dict())
    plain.head.load_state_dict(hybrid.map_head.state_dict())
    images, tags = torch.randn(1, 3, 64, 96), torch.ones(1, 3)
    with torch.inference_mode():
        ours, theirs = (network.activations(images, tags).classes for network in (hybrid, plain))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_any_size_and_rows_that_sum_to_one() -> None:
    network, attention = HybridClassifier(3).eval(), AttentionSum()
    with torch.inference_mode():
        parts = network.parts(torch.randn(2, 3, 50, 75), [attention])
    assert parts.maps.shape == (2, 3, 4, 5) and parts.logits.shape == (2, 3) and attention.count == network.depth
    rows = attention.mean(1).sum(-1)
    torch.testing.assert_close(rows, torch.ones_like(rows))


def test_every_part_of_the_branch_learns_within_two_steps() -> None:
    torch.manual_seed(0)
    network = HybridClassifier(2).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    images, tags = torch.randn(2, 3, 64, 64), torch.eye(2)
    for _ in range(2):  # what starts at zero hides what lies behind it for one step
        optimiser.zero_grad()
        tag_loss(network(images), tags).backward()
        optimiser.step()
    learning = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert [name for name, gradient in learning.items() if gradient is None or not gradient.any()] == []
