"""A stochastic step, the walk that restarts, and boxes around strong activation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.propagation.diffusion import restarted, sinkhorn, source_boxes, transition
from tests.support.propagation import GOLDEN, MAP


@given(st.integers(0, 2**31), st.integers(1, 20))
@settings(deadline=None, max_examples=50)
def test_many_sinkhorn_sweeps_are_doubly_stochastic(seed: int, n: int) -> None:
    # Entries within a factor of 5: each sweep at least halves the error, which nearly separate components prevent.
    weights = 0.2 + 0.8 * torch.rand(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    step = sinkhorn(weights, 20)
    ones = torch.ones(n, dtype=step.dtype)
    for axis in (0, 1):
        torch.testing.assert_close(step.sum(axis), ones, atol=1e-3, rtol=0)
    assert torch.equal(step, step.mT)
    once = sinkhorn(weights, 1)
    columns = weights / weights.sum(0, keepdim=True)
    rows = columns / columns.sum(1, keepdim=True)
    torch.testing.assert_close(once, (rows + rows.mT) / 2)


def test_boxes_are_inclusive_and_one_for_each_component() -> None:
    picture = [
        [0.9, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.8, 0.0, 0.0, 0.0, 0.0],  # touches the cell above at a corner: one component
        [0.0, 0.0, 0.0, 0.0, 0.5, 0.0],
        [0.0, 0.0, 0.0, 0.3, 0.0, 1.0],
    ]
    maps = torch.tensor([picture, [[0.0] * 6] * 4]).flatten(1)
    boxes = source_boxes(maps, (4, 6), 0.5).view(2, 4, 6)
    expected = torch.zeros(4, 6)
    expected[:2, :2] = 1
    expected[2:, 4:] = 1
    assert torch.equal(boxes[0], expected)
    assert boxes[1].all()


def test_words_and_shares_without_meaning_are_refused() -> None:
    wrong: Any = "sideways"
    with pytest.raises(ValueError, match="unknown direction"):
        transition(GOLDEN, wrong)
    with pytest.raises(ValueError, match="no closed form"):
        restarted(MAP, GOLDEN, 1)
