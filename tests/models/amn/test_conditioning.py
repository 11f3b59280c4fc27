"""Heads that are told the classes of an image."""

from typing import get_args

import pytest
import torch

from models.amn.conditioning import ConditionedHead, HeadKind


@pytest.mark.parametrize("kind", get_args(HeadKind))
def test_conditioned_heads(kind: HeadKind) -> None:
    torch.manual_seed(0)
    head = ConditionedHead(kind, 8, 4)
    features, tags = torch.randn(2, 8, 7, 5), torch.eye(4)[:2]
    assert head(features, tags).shape == (2, 5, 7, 5)
    head.eval()
    assert torch.equal(head(features, tags), head(features, tags.bool()))
    assert not torch.equal(head(features, tags), head(features, tags.flip(0)))
