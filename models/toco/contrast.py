"""Class token contrast (CTC): the token of a local view resembles the whole image's if it shows an object of it.

"The dual-branch paper" is doi:10.19651/j.cnki.emt.2416644.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.precision import full_precision

FLOOR = 1e-4


class ProjectionHead(nn.Module):
    """Class tokens (N, dim) to cosines with learnt directions (N, outputs).

    Three linear layers with GELU between, to a unit vector; then its cosine with each direction.
    Source: released code of ToCo (`model/model_seg_neg.py`), after DINO; weight-normalised last layer of gain 1.
    """

    def __init__(self, dim: int, outputs: int = 1024, hidden: int = 2048, bottleneck: int = 256) -> None:
        super().__init__()
        layers = [nn.Linear(dim, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, bottleneck)]
        for layer in layers:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.mlp = nn.Sequential(layers[0], nn.GELU(), layers[1], nn.GELU(), layers[2])
        self.directions = nn.Linear(bottleneck, outputs, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, dim) to (N, outputs) in [-1, 1]."""
        unit = functional.normalize(self.mlp(tokens), dim=-1)
        return functional.linear(unit, functional.normalize(self.directions.weight, dim=1))


class ContrastHeads(nn.Module):
    """The student's head, which learns, and the teacher's, which follows it as a moving average.

    Only the head has a teacher; both read the same encoder, so one encoding of a view serves both.
    Source: released code of ToCo (`model/model_seg_neg.py`): `released`, momentum 0.9 included.
    """

    def __init__(self, dim: int, momentum: float = 0.9, outputs: int = 1024, hidden: int = 2048) -> None:
        super().__init__()
        self.momentum = momentum
        self.student = ProjectionHead(dim, outputs, hidden)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    @torch.no_grad()
    def update_teacher(self) -> None:
        """Move the teacher towards the student; once in each training iteration, before use."""
        for teacher, student in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            teacher.lerp_(student, 1 - self.momentum)

    def forward(self, whole: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
        """Project the class tokens of whole views (T, B, dim) and of local views (n, B, dim).

        Returns:
            Student (T + n, B, outputs), whole views first, and teacher (T, B, outputs) without gradient.
        """
        with torch.no_grad():
            teacher = self.teacher(whole)
        return self.student(torch.cat([whole, local])), teacher


def ctc_loss(
    student: Tensor, teacher: Tensor, flags: Tensor, temperature: float = 0.5, extra_term: bool = False
) -> Tensor:
    """Contrast of views: each positive one against all negative ones of the same image, for each whole view.

    With E = exp(teacher . student / temperature) and S the sum of E over negative views, the mean over whole views of
    the sum over positive views of -log(E / (E + S + 1e-4)), divided by their number + 1e-4; mean over images.
    Evaluated with logarithms only: it cannot overflow, and is finite without negative or without positive views.

    Args:
        student: (V, B, D) projections of all views.
        teacher: (T, B, D) projections of the whole views; gets no gradient.
        flags: (B, V) bool or 0/1, positive views.
        temperature: divides the dot products.
        extra_term: compatibility with the released code, which adds -log(1 / (1 + S + 1e-4)) once for each whole view.

    Returns:
        Scalar.

    Source: Ru et al., CVPR 2023 (ToCo), as restated in the dual-branch paper, eq. 12 (`published`, where the minus sign
    is missing); 1e-4 and the normalisation from the released code.
    """
    with full_precision(student.device):
        products = torch.einsum("tbd,vbd->btv", teacher.detach().float(), student.float()) / temperature
    positive = flags.to(products.device).bool()[:, None]
    floor = torch.full_like(products[..., :1], math.log(FLOOR))
    negatives = torch.cat([products.masked_fill(positive, -torch.inf), floor], dim=2).logsumexp(dim=2, keepdim=True)
    terms = functional.softplus(negatives - products).masked_fill(~positive, 0).sum(dim=2)
    if extra_term:
        terms = terms + functional.softplus(negatives[..., 0])
    return (terms.mean(dim=1) / (positive.sum(dim=(1, 2)) + FLOOR)).mean()
