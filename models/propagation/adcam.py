"""Attention-based class activation diffusion: attention reduced where neighbourhoods differ, then diffusion along it.

Conservative step: the attention A_ij of a pair shrinks by how much the two tokens' attentions to common neighbours
agree, W_ij = A_ij s_ij^gamma. Convincing step: W becomes a stochastic matrix T, and activation moves along T.

Source: the abstract of Huang, Zhang, Wang & Sun, arXiv 2211.10931, says this much. Its full text was not available:
all formulas, knobs and defaults here are ours (`reconstructed`), and no number of that paper may be claimed for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate
from typing import get_args

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from models.propagation.knobs import Direction, Mode, Settings, Similarity, lazy_share


def neighbourhoods(attention: Tensor, topk: int | None = None) -> Tensor:
    """Each token's attention as a distribution over its neighbours: P_i = A_i / sum_k A_ik.

    Args:
        attention: (N, N) non-negative, row = query.
        topk: only so many of the largest entries of each row stay, renormalised; None for all.

    Returns:
        (N, N), rows sum to 1; a row without attention stays zero.
    """
    if topk is not None and topk < len(attention):
        values, places = attention.topk(topk, dim=1)
        attention = torch.zeros_like(attention).scatter_(1, places, values)
    return attention / attention.sum(1, keepdim=True).clamp_min(torch.finfo(attention.dtype).tiny)


def agreement(rows: Tensor, kind: Similarity = "bhattacharyya", chunk: int = 8) -> Tensor:
    """How much two tokens agree in their attention to common neighbours (`reconstructed`).

    Of distributions p and q, with sums over the neighbours k:
    `bhattacharyya` sum sqrt(p q); `js` 1 - Jensen-Shannon divergence in bits; `intersection` sum min(p, q);
    `jaccard` sum min(p, q) / sum max(p, q); `cosine` of the vectors; `shared_topk` tokens in both supports / tokens
    in the larger support, which topk made k; `none` 1. bhattacharyya, cosine and shared_topk are one matrix
    product; js, intersection and jaccard visit N^3 elements and take tens of times longer.

    Args:
        rows: (N, N) from `neighbourhoods`.
        kind: the measure.
        chunk: rows at a time of the slow measures.

    Returns:
        (N, N) symmetric, in [0, 1], 1 on the diagonal and between equal rows, 0 between rows without common
        neighbours (for `cosine` to `jaccard` up to rounding) and for rows that are zero.

    Raises:
        ValueError: the measure is unknown.
    """
    match kind:
        case "bhattacharyya":
            shared = _gram(rows.sqrt())
        case "cosine":
            shared = _gram(functional.normalize(rows, dim=1))
        case "shared_topk":
            members = (rows > 0).to(rows.dtype)
            sizes = members.sum(1)
            shared = _gram(members) / torch.maximum(sizes[:, None], sizes).clamp_min(1)
        case "js":
            shared = _pairwise(_js_terms, (rows, torch.xlogy(rows, rows)), chunk)
        case "intersection":
            shared = _pairwise(torch.minimum, (rows,), chunk)
        case "jaccard":
            overlap = _pairwise(torch.minimum, (rows,), chunk)
            shared = overlap / (2 - overlap)  # both rows sum to 1, so sum max = 2 - sum min
        case "none":
            shared = torch.ones_like(rows)
        case _:
            raise ValueError(f"unknown similarity {kind!r}, choose from {get_args(Similarity)}")
    return shared.clamp_(0, 1).fill_diagonal_(1)


def _gram(vectors: Tensor) -> Tensor:
    return vectors @ vectors.mT


def _js_terms(p: Tensor, p_log_p: Tensor, q: Tensor, q_log_q: Tensor) -> Tensor:
    """Summands of 1 - JSD in bits, (p+q)/2 h(p/(p+q)) with the binary entropy h: nothing where p or q is zero."""
    both = p + q
    return (torch.xlogy(both, both) - p_log_p - q_log_q) / (2 * math.log(2))


def _pairwise(terms: Callable[..., Tensor], tables: tuple[Tensor, ...], chunk: int) -> Tensor:
    """Symmetric (N, N) of sum_k terms(*tables[i, k], *tables[j, k]): upper triangle by rows, then mirrored."""
    result = torch.empty_like(tables[0])
    for start in range(0, len(result), chunk):
        stop = start + chunk
        here, there = [table[start:stop, None] for table in tables], [table[None, start:] for table in tables]
        block = terms(*here, *there).sum(-1)
        result[start:stop, start:] = block
        result[start:, start:stop] = block.mT
    return result


def conservative(attention: Tensor, settings: Settings) -> Tensor:
    """Attention refined by agreement: W_ij = A_ij s_ij^gamma, and the self loops of `settings.self_loop`.

    Agreement is 1 on the diagonal, so that without care the diagonal gains on everything else and the diffusion
    freezes; hence the self loops have a rule of their own.

    Args:
        attention: (N, N) non-negative, row = query; rows sum to at most 1.
        settings: similarity, gamma, topk, self_loop and chunk count.

    Returns:
        (N, N) with 0 <= W <= A off the diagonal; with `lazy` the diagonal is zero and `transition` adds it.

    Source: `reconstructed`.
    """
    rows = neighbourhoods(attention, settings.topk)
    weights = attention * agreement(rows, settings.similarity, settings.chunk).pow_(settings.gamma)
    weights.fill_diagonal_(0)
    if settings.self_loop == "rowmax":
        weights.diagonal().copy_(weights.amax(1))
    elif settings.self_loop == "keep":
        weights.diagonal().copy_(attention.diagonal())
    return weights


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
    match direction:
        case "pull":
            step = _stochastic(weights)
        case "push_row":
            step = _stochastic(weights).mT
        case "push_col":
            step = _stochastic(weights.mT).mT
        case "sinkhorn":
            step = sinkhorn(weights, sinkhorn_iters)
        case _:
            raise ValueError(f"unknown direction {direction!r}, choose from {get_args(Direction)}")
    return step if lazy is None else lazy * step + (1 - lazy) * torch.eye(len(step)).to(step)


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


def step_weights(mode: Mode, steps: int, alpha: float, tau: float) -> list[float]:
    """Weights w_0, w_1, ... of the walk sum_t w_t T^t m: the distribution of the number of steps taken.

    `power` takes exactly `steps`. `ppr` goes on with probability alpha each time, `steps` times at most: this is
    m(t+1) = alpha T m(t) + (1 - alpha) m(0). `sum` weighs t = 0..steps with alpha^t. `heat` is
    exp(-tau (I - T)), a Poisson number of steps, whatever `steps` is; what is cut off has probability below 1e-7.

    Returns:
        Non-negative weights that sum to 1.

    Raises:
        ValueError: the mode is unknown.
    """
    match mode:
        case "power":
            weights = [0.0] * steps + [1.0]
        case "ppr":
            weights = [(1 - alpha) * alpha**t for t in range(steps)] + [alpha**steps]
        case "sum":
            weights = [alpha**t for t in range(steps + 1)]
        case "heat":
            longest = math.ceil(tau + 7 * math.sqrt(tau)) + 9
            weights = list(accumulate(range(1, longest), lambda w, t: w * tau / t, initial=math.exp(-tau)))
        case _:
            raise ValueError(f"unknown mode {mode!r}, choose from {get_args(Mode)}")
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def diffuse(activation: Tensor, step: Tensor, settings: Settings) -> Tensor:
    """Activation moved along T as `settings.mode`, steps, alpha and tau say; linear in the activation.

    Args:
        activation: (C, N).
        step: (N, N) from `transition`.
        settings: see above.

    Returns:
        (C, N) sum_t w_t T^t m with the weights of `step_weights`, or its limit for closed `ppr`.

    Source: `reconstructed`.
    """
    if settings.steps == "closed":
        return restarted(activation, step, settings.alpha)
    moved, total = activation, torch.zeros_like(activation)
    for t, weight in enumerate(step_weights(settings.mode, settings.steps, settings.alpha, settings.tau)):
        moved = moved @ step.mT if t else moved
        total = total + weight * moved
    return total


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


def adcam(activation: Tensor, attention: Tensor, grid: tuple[int, int], settings: Settings) -> Tensor:
    """Attention-based class activation diffusion of one view.

    Args:
        activation: (C, N) float32 in [0, 1].
        attention: (N, N) float32 non-negative, row = query; rows sum to at most 1.
        grid: (h, w) of the N tokens.
        settings: all of them.

    Returns:
        (C, N): residual * M + (1 - residual) * diffused M; with `box_mask` the boxes mask the sources of the whole
        diffusion, not of each of its steps.

    Source: abstract of arXiv 2211.10931; formulas `reconstructed`.
    """
    weights = conservative(attention, settings)
    step = transition(weights, settings.direction, settings.sinkhorn_iters, lazy_share(settings.self_loop))
    moved = diffuse(boxed(activation, grid, settings.box_mask), step, settings)
    return settings.residual * activation + (1 - settings.residual) * moved
