"""The balanced seed loss: formula, empty sides, ignored pixels, scope."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.amn.balanced_seed_loss import AMN_FORM, DSRG_FORM, SeedLossForm, seed_loss, smoothed_targets
from models.labels import IGNORE

FORMS = [AMN_FORM, DSRG_FORM, SeedLossForm("image", "mean", 0.2, 3.0), SeedLossForm("batch", "sum", 0.0, 0.5, 1e-3)]


def plain(logits: Tensor, labels: Tensor, form: SeedLossForm) -> float:
    """The formula, pixel by pixel."""
    images = []
    for image, label in zip(logits.double().tolist(), labels.tolist(), strict=True):
        sides: dict[bool, list[float]] = {False: [], True: []}
        for y, row in enumerate(label):
            for x, name in enumerate(row):
                if name == form.ignore:
                    continue
                exponentials = [math.exp(channel[y][x]) for channel in image]
                raised = [e / sum(exponentials) + form.floor for e in exponentials]
                logs = [math.log(r / sum(raised)) for r in raised]
                others = form.smoothing / (len(logs) - 1)
                weights = [1 - form.smoothing if c == name else others for c in range(len(logs))]
                sides[name > 0].append(-sum(w * log for w, log in zip(weights, logs, strict=True)))
        images.append(sides)
    if form.scope == "batch":
        images = [{side: [v for sides in images for v in sides[side]] for side in (False, True)}]
    bg, fg = (sum(sum(i[s]) / max(len(i[s]), 1) for i in images) / len(images) for s in (False, True))
    return (bg + form.foreground_weight * fg) / (2 if form.combine == "mean" else 1)


def example(seed: int, batch: int = 2, classes: int = 3, side: int = 4) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, classes + 1, (batch, side, side), generator=rng)
    return 3 * torch.randn(batch, 1 + classes, side, side, generator=rng), labels.masked_fill(labels < 0, IGNORE)


def test_two_by_two_by_hand() -> None:
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 1, 0, 0] = math.log(2)  # probabilities 1/4, 1/2, 1/4 at the only foreground pixel
    labels = torch.tensor([[[1, 0], [0, IGNORE]]])
    loss = seed_loss(logits, labels, SeedLossForm(smoothing=0.0))
    assert loss.fg.item() == pytest.approx(math.log(2))
    assert loss.bg.item() == pytest.approx(math.log(3))
    assert loss.total.item() == pytest.approx((math.log(2) + math.log(3)) / 2)
    smooth = seed_loss(logits, labels, SeedLossForm(smoothing=0.4))
    assert smooth.fg.item() == pytest.approx(0.6 * math.log(2) + 2 * 0.2 * math.log(4))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), form=st.sampled_from(FORMS))
def test_equals_the_formula(seed: int, form: SeedLossForm) -> None:
    logits, labels = example(seed)
    assert seed_loss(logits, labels, form).total.item() == pytest.approx(plain(logits, labels, form), rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("label", [0, 2, IGNORE])
def test_an_empty_side_is_zero_and_has_no_gradient(form: SeedLossForm, label: int) -> None:
    logits, _ = example(0)
    labels = torch.full((2, 4, 4), label)
    loss = seed_loss(logits.requires_grad_(), labels, form)
    assert (loss.bg > 0) == (label == 0) and (loss.fg > 0) == (label == 2)
    empty = [side for side in (loss.bg, loss.fg) if side == 0]
    assert torch.isfinite(loss.total) and empty
    (gradient,) = torch.autograd.grad(torch.stack(empty).sum(), logits, retain_graph=True)
    assert not gradient.any()
    (gradient,) = torch.autograd.grad(loss.total, logits)
    assert torch.isfinite(gradient).all() and gradient.any() == (label != IGNORE)


@pytest.mark.parametrize("form", FORMS)
def test_ignored_pixels_do_not_matter(form: SeedLossForm) -> None:
    logits, labels = example(1)
    ignored = (labels == IGNORE)[:, None].expand_as(logits)
    other = torch.where(ignored, -logits + 5, logits)
    assert torch.equal(seed_loss(logits, labels, form).total, seed_loss(other, labels, form).total)
    loss = seed_loss(logits.requires_grad_(), labels, form).total
    assert not torch.autograd.grad(loss, logits)[0][ignored].any()


@pytest.mark.parametrize("form", FORMS)
def test_order_of_classes_does_not_matter(form: SeedLossForm) -> None:
    logits, labels = example(2)
    new_id = torch.tensor([0, 3, 1, 2])
    renamed = torch.where(labels == IGNORE, IGNORE, new_id[labels.clamp(max=3)])
    permuted = torch.empty_like(logits)
    permuted[:, new_id] = logits
    torch.testing.assert_close(seed_loss(permuted, renamed, form), seed_loss(logits, labels, form))


def test_smoothed_targets_sum_to_one() -> None:
    targets = smoothed_targets(torch.tensor([[[0, 7, IGNORE]]]), 21, 0.4)
    torch.testing.assert_close(targets.sum(1), torch.ones(1, 1, 3))
    assert targets[0, 7, 0, 1].item() == pytest.approx(0.6)
    assert targets[0, 6, 0, 1].item() == pytest.approx(0.02)


def test_scope_and_weight() -> None:
    logits, _ = example(3)
    labels = torch.zeros(2, 4, 4, dtype=torch.long)
    labels[0, :3], labels[1, 0, 0] = 1, 2
    alone = [seed_loss(logits[i : i + 1], labels[i : i + 1]) for i in (0, 1)]
    image = seed_loss(logits, labels, replace(AMN_FORM, scope="image"))
    batch = seed_loss(logits, labels)
    torch.testing.assert_close(image.fg, (alone[0].fg + alone[1].fg) / 2)
    torch.testing.assert_close(batch.fg, (12 * alone[0].fg + alone[1].fg) / 13)
    heavy = seed_loss(logits, labels, replace(AMN_FORM, foreground_weight=3.0))
    torch.testing.assert_close(heavy.total, (batch.bg + 3 * batch.fg) / 2)


def test_half_precision_and_extreme_logits_stay_finite() -> None:
    logits, labels = example(4)
    for form in FORMS:
        assert torch.isfinite(seed_loss(1e4 * logits, labels, form).total)
        assert seed_loss(logits.half(), labels.to(torch.uint8), form).total.dtype == torch.float32


@pytest.mark.parametrize("wrong", [{"smoothing": 1.0}, {"smoothing": -0.1}, {"floor": -1.0}, {"foreground_weight": -1}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        SeedLossForm(**wrong)  # type: ignore[arg-type]
