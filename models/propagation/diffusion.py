"""Diffusion along attention: a stochastic step, the walk that restarts, and where activation may start from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

Direction = Literal["pull", "push_row", "push_col", "sinkhorn"]
DIRECTION = (
    "how attention becomes a step: pull (rows sum to 1), push_row, push_col (columns do), sinkhorn (both nearly)"
)
"""The meaning of a knob `direction`."""
SWEEPS = "sweeps of the normalisation sinkhorn"
"""The meaning of a knob `sinkhorn_iters`."""
BOX_MASK = "only cells in boxes around what exceeds this share of a class's maximum give activation; none: all cells"
"""The meaning of a knob `box_mask`."""


def sinkhorn(weights: Tensor, sweeps: int) -> Tensor:
    """Columns, then rows divided by their sums, `sweeps` times; then the mean with the transpose.

    Args:
        weights: (N, N) non-negative.
        sweeps: at least 1.

    Returns:
        (N, N) symmetric, non-negative; rows and columns sum to 1 in the limit, where the weights have one.
        After few sweeps, sums of sparse weights may exceed 1, and a walk then gains activation.

    Source: CLIP-ES (Lin et al., CVPR 2023), 3 sweeps: `released`.
    """
    for _ in range(sweeps):
        weights = _stochastic(_stochastic(weights.mT).mT)
    return (weights + weights.mT) / 2


def _stochastic(weights: Tensor) -> Tensor:
    """Rows divided by their sums; a row without weight becomes a self loop."""
    total = weights.sum(1, keepdim=True)
    tiny = torch.finfo(weights.dtype).tiny
    return weights / total.clamp_min(tiny) + torch.diag_embed((total[:, 0] < tiny).to(weights.dtype))


STEPS: dict[Direction, Callable[[Tensor, int], Tensor]] = {
    "pull": lambda weights, _: _stochastic(weights),
    "push_row": lambda weights, _: _stochastic(weights).mT,
    "push_col": lambda weights, _: _stochastic(weights.mT).mT,
    "sinkhorn": sinkhorn,
}


def transition(
    weights: Tensor, direction: Direction = "pull", sinkhorn_iters: int = 3, lazy: float | None = None
) -> Tensor:
    """One step T of the diffusion, to be applied as m' = T m.

    `pull` normalises rows, T = D_r^-1 W: each token becomes a mean of what it attends to. `push_row` is the transpose
    of that: each token gives its activation away in proportion to its own attention. `push_col`, T = W D_c^-1: it
    gives in proportion to how much the others attend to it. Both preserve the sum of the activation. `sinkhorn`
    alternates column and row normalisation and symmetrises: the more sweeps, the nearer to both.

    Args:
        weights: (N, N) non-negative.
        direction: see above.
        sinkhorn_iters: sweeps of `sinkhorn`.
        lazy: b of T := (1 - b) I + b T; None for T.

    Returns:
        (N, N) non-negative; rows sum to 1 (`pull`), columns do (`push_*`). Tokens without weight keep what they have.

    Raises:
        ValueError: the direction is unknown.

    Source: `reconstructed`; the abstract's sentence fits all four.
    """
    if direction not in STEPS:
        raise ValueError(f"unknown direction {direction!r}, choose from {get_args(Direction)}")
    step = STEPS[direction](weights, sinkhorn_iters)
    return step if lazy is None else lazy * step + (1 - lazy) * torch.eye(len(step)).to(step)


def restarted(activation: Tensor, step: Tensor, alpha: float) -> Tensor:
    """Random walk with restart in closed form, (1 - alpha) (I - alpha T)^-1 m.

    Args:
        activation: (C, N).
        step: (N, N) from `transition`.
        alpha: share that walks on, in [0, 1).

    Returns:
        (C, N).

    Raises:
        ValueError: alpha is 1, which has no closed form.
    """
    if alpha == 1:
        raise ValueError("a walk that never restarts has no closed form; take alpha below 1")
    # A few Sinkhorn sweeps may leave an eigenvalue above 1, and no limit; row and column sums both bound it.
    step = step / torch.minimum(step.sum(0).amax(), step.sum(1).amax()).clamp_min(1)
    system = torch.eye(len(step)).to(step) - alpha * step
    return (1 - alpha) * torch.linalg.solve(system, activation.mT).mT


def source_boxes(activation: Tensor, grid: tuple[int, int], share: float) -> Tensor:
    """Which tokens lie in a box around a strong component of their class.

    Args:
        activation: (C, N) non-negative, N = h * w in row order.
        grid: (h, w).
        share: components are made of cells with at least this share of the class's maximum, 8-connected.

    Returns:
        (C, N) of 0 and 1. Boxes are inclusive: the released CLIP-ES code, which finds them on an 8-bit map, leaves
        out the grid's last row and column. All ones for a class that is zero everywhere.

    Source: CLIP-ES (Lin et al., CVPR 2023): `published`.
    """
    inside = np.zeros((len(activation), *grid), dtype=np.float32)
    for box, cells in zip(inside, activation.reshape(-1, *grid).cpu().numpy(), strict=True):
        components, _ = ndimage.label(cells >= share * cells.max(), structure=np.ones((3, 3)))
        for window in ndimage.find_objects(components):
            box[window] = 1
    return torch.from_numpy(inside).flatten(1).to(activation)


def boxed(activation: Tensor, grid: tuple[int, int], share: float | None) -> Tensor:
    """Activation (C, N) inside its `source_boxes`, zero outside; as it is where `share` is None.

    A matrix whose columns (sources) are masked does the same to a map as the whole matrix does to the masked map.
    """
    return activation if share is None else activation * source_boxes(activation, grid, share)
