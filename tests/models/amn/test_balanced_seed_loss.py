"""The balanced seed loss: formula, empty sides, ignored pixels, means over the batch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.amn.balanced_seed_loss import balanced_seed_loss, smoothed_targets
from models.amn.knobs import SeedLossKnobs
from models.labels import IGNORE


def knobs(smoothing: float = 0.4, foreground_weight: float = 1.0) -> SeedLossKnobs:
    return SeedLossKnobs(label_smoothing=smoothing, foreground_weight=foreground_weight)


KNOBS = [SeedLossKnobs(), knobs(0.0), knobs(0.2, 3.0), knobs(0.0, 0.5)]


def plain(logits: Tensor, labels: Tensor, knobs: SeedLossKnobs) -> float:
    """The formula, pixel by pixel."""
    sides: dict[bool, list[float]] = {False: [], True: []}
    for image, label in zip(logits.double().tolist(), labels.tolist(), strict=True):
        for y, row in enumerate(label):
            for x, name in enumerate(row):
                if name == IGNORE:
                    continue
                exponentials = [math.exp(channel[y][x]) for channel in image]
                logs = [math.log(e / sum(exponentials)) for e in exponentials]
                others = knobs.label_smoothing / (len(logs) - 1)
                weights = [1 - knobs.label_smoothing if c == name else others for c in range(len(logs))]
                sides[name > 0].append(-sum(w * log for w, log in zip(weights, logs, strict=True)))
    bg, fg = (sum(sides[side]) / max(len(sides[side]), 1) for side in (False, True))
    return (bg + knobs.foreground_weight * fg) / 2


def example(seed: int, batch: int = 2, classes: int = 3, side: int = 4) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, classes + 1, (batch, side, side), generator=rng)
    return 3 * torch.randn(batch, 1 + classes, side, side, generator=rng), labels.masked_fill(labels < 0, IGNORE)


def test_two_by_two_by_hand() -> None:
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 1, 0, 0] = math.log(2)  # probabilities 1/4, 1/2, 1/4 at the only foreground pixel
    labels = torch.tensor([[[1, 0], [0, IGNORE]]])
    loss = balanced_seed_loss(logits, labels, knobs(0.0))
    assert loss.fg.item() == pytest.approx(math.log(2))
    assert loss.bg.item() == pytest.approx(math.log(3))
    assert loss.total.item() == pytest.approx((math.log(2) + math.log(3)) / 2)
    smooth = balanced_seed_loss(logits, labels, knobs(0.4))
    assert smooth.fg.item() == pytest.approx(0.6 * math.log(2) + 2 * 0.2 * math.log(4))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), which=st.sampled_from(KNOBS))
def test_equals_the_formula(seed: int, which: SeedLossKnobs) -> None:
    logits, labels = example(seed)
    assert balanced_seed_loss(logits, labels, which).total.item() == pytest.approx(
        plain(logits, labels, which), rel=1e-5
    )


@pytest.mark.parametrize("which", KNOBS)
@pytest.mark.parametrize("label", [0, 2, IGNORE])
def test_an_empty_side_is_zero_and_has_no_gradient(which: SeedLossKnobs, label: int) -> None:
    logits, _ = example(0)
    labels = torch.full((2, 4, 4), label)
    loss = balanced_seed_loss(logits.requires_grad_(), labels, which)
    assert (loss.bg > 0) == (label == 0) and (loss.fg > 0) == (label == 2)
    empty = [side for side in (loss.bg, loss.fg) if side == 0]
    assert torch.isfinite(loss.total) and empty
    (gradient,) = torch.autograd.grad(torch.stack(empty).sum(), logits, retain_graph=True)
    assert not gradient.any()
    (gradient,) = torch.autograd.grad(loss.total, logits)
    assert torch.isfinite(gradient).all() and gradient.any() == (label != IGNORE)


@pytest.mark.parametrize("which", KNOBS)
def test_ignored_pixels_do_not_matter(which: SeedLossKnobs) -> None:
    logits, labels = example(1)
    ignored = (labels == IGNORE)[:, None].expand_as(logits)
    other = torch.where(ignored, -logits + 5, logits)
    assert torch.equal(balanced_seed_loss(logits, labels, which).total, balanced_seed_loss(other, labels, which).total)
    loss = balanced_seed_loss(logits.requires_grad_(), labels, which).total
    assert not torch.autograd.grad(loss, logits)[0][ignored].any()


@pytest.mark.parametrize("which", KNOBS)
def test_order_of_classes_does_not_matter(which: SeedLossKnobs) -> None:
    logits, labels = example(2)
    new_id = torch.tensor([0, 3, 1, 2])
    renamed = torch.where(labels == IGNORE, IGNORE, new_id[labels.clamp(max=3)])
    permuted = torch.empty_like(logits)
    permuted[:, new_id] = logits
    torch.testing.assert_close(balanced_seed_loss(permuted, renamed, which), balanced_seed_loss(logits, labels, which))


def test_smoothed_targets_sum_to_one() -> None:
    targets = smoothed_targets(torch.tensor([[[0, 7, IGNORE]]]), 21, 0.4)
    torch.testing.assert_close(targets.sum(1), torch.ones(1, 1, 3))
    assert targets[0, 7, 0, 1].item() == pytest.approx(0.6)
    assert targets[0, 6, 0, 1].item() == pytest.approx(0.02)


def test_means_are_over_the_batch_and_the_foreground_has_a_weight() -> None:
    logits, _ = example(3)
    labels = torch.zeros(2, 4, 4, dtype=torch.long)
    labels[0, :3], labels[1, 0, 0] = 1, 2
    alone = [balanced_seed_loss(logits[i : i + 1], labels[i : i + 1]) for i in (0, 1)]
    batch = balanced_seed_loss(logits, labels)
    torch.testing.assert_close(batch.fg, (12 * alone[0].fg + alone[1].fg) / 13)
    heavy = balanced_seed_loss(logits, labels, knobs(foreground_weight=3.0))
    torch.testing.assert_close(heavy.total, (batch.bg + 3 * batch.fg) / 2)


def test_half_precision_and_extreme_logits_stay_finite() -> None:
    logits, labels = example(4)
    for which in KNOBS:
        assert torch.isfinite(balanced_seed_loss(1e4 * logits, labels, which).total)
        assert balanced_seed_loss(logits.half(), labels.to(torch.uint8), which).total.dtype == torch.float32


@pytest.mark.parametrize(
    "wrong",
    [{"label_smoothing": 1.0}, {"label_smoothing": -0.1}, {"foreground_weight": 0.0}, {"foreground_weight": -1}],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        SeedLossKnobs(**wrong)
