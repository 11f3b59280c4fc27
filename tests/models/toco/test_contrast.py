"""Class token contrast, and the teacher that follows."""

import math

import pytest
import torch
from torch import Tensor

from models.toco.contrast import ContrastHeads, ctc_loss


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain_ctc(student: Tensor, teacher: Tensor, flags: Tensor, temperature: float, extra: bool) -> float:
    total = 0.0
    for image in range(flags.shape[0]):
        scores = [[math.exp(float(p @ q) / temperature) for q in student[:, image]] for p in teacher[:, image]]
        sides = flags[image].tolist()
        for row in scores:
            away = sum(score for score, side in zip(row, sides, strict=True) if not side)
            terms = [math.log((score + away + 1e-4) / score) for score, side in zip(row, sides, strict=True) if side]
            total += (sum(terms) + extra * math.log(1 + away + 1e-4)) / len(scores) / (sum(sides) + 1e-4)
    return total / flags.shape[0]


@pytest.mark.parametrize("extra", [False, True])
def test_class_token_contrast_against_plain_loops(extra: bool) -> None:
    generator = seeded(9)
    student, teacher = torch.randn(10, 3, 16, generator=generator) / 3, torch.randn(2, 3, 16, generator=generator) / 3
    flags = torch.rand(3, 10, generator=generator) < 0.5
    flags[:, :2] = True
    flags[1] = True  # an image without negative views
    ours = ctc_loss(student, teacher, flags, 0.5, extra_term=extra)
    assert float(ours) == pytest.approx(plain_ctc(student, teacher, flags, 0.5, extra), rel=1e-5)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("size", [0.0, 1.0, 1000.0])
def test_class_token_contrast_is_always_finite(size: float, positive: bool) -> None:
    student = torch.full((10, 2, 4), size, requires_grad=True)
    loss = ctc_loss(student, torch.full((2, 2, 4), size), torch.full((2, 10), positive))
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_teacher_follows_the_student() -> None:
    torch.manual_seed(0)
    heads = ContrastHeads(8, momentum=0.9, outputs=16, hidden=12)
    tokens = torch.randn(3, 2, 8)
    student, teacher = heads(tokens[:2], tokens[2:])
    assert student.shape == (3, 2, 16)
    assert student.detach().abs().max() <= 1
    torch.testing.assert_close(teacher, student[:2].detach())
    assert student.requires_grad
    assert not teacher.requires_grad
    old = [parameter.clone() for parameter in heads.teacher.parameters()]
    with torch.no_grad():
        for parameter in heads.student.parameters():
            parameter.add_(1)
    heads.update_teacher()
    for before, after in zip(old, heads.teacher.parameters(), strict=True):
        torch.testing.assert_close(after, before + 0.1)
