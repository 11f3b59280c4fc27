"""Losses of pixel labels that all segmentation networks share."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from models.labels import IGNORE
from models.segmenters.segmenter import balanced_pixel_loss, pixel_loss


def test_balanced_loss_is_the_sum_of_both_sides_means() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 5, 7), torch.randint(0, 3, (2, 5, 7))
    labels[0, :2] = IGNORE
    each = functional.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    sides = each[labels == 0].mean() + each[(labels == 1) | (labels == 2)].mean()
    assert balanced_pixel_loss(logits, labels) == pytest.approx(sides.item(), rel=1e-5)


@pytest.mark.parametrize("fill", [0, 2, IGNORE])
def test_side_without_a_pixel_counts_nothing(fill: int) -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.full((1, 4, 4), fill)
    loss = balanced_pixel_loss(logits, labels)
    assert loss.item() == pytest.approx(pixel_loss(logits, labels).item())
    loss.backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
