"""Attention-based class activation diffusion: attention reduced where neighbourhoods differ, then diffusion along it.

Conservative step: the attention A_ij of a pair shrinks by how much the two tokens' attentions to common neighbours
agree, W_ij = A_ij s_ij^gamma. Convincing step: W becomes a stochastic matrix T, and activation moves along T.

Source: the abstract of Huang, Zhang, Wang & Sun, arXiv 2211.10931, says this much. Its full text was not available:
all formulas, knobs and defaults here are ours (`reconstructed`), and no number of that paper may be claimed for them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import accumulate
from typing import Annotated, Literal, get_args

import torch
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor
from torch.nn import functional

from models.knobs import Count, Index, Maybe, NonNegative, Number, Share, knob
from models.propagation.diffusion import BOX_MASK, DIRECTION, SWEEPS, Direction, boxed, restarted, transition
from models.propagation.rule import BlockKnobs, Observation, Rule

Similarity = Literal["bhattacharyya", "js", "intersection", "jaccard", "cosine", "shared_topk", "none"]
Mode = Literal["power", "ppr", "heat", "sum"]
OURS = "reconstructed"

GAMMAS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""What `gamma: auto` chooses from."""


def lazy_share(self_loop: str) -> float | None:
    """The share b of `lazy:<b>`, in [0, 1]; None for the other words.

    Raises:
        ValueError: there is no such word.
    """
    if not re.fullmatch(r"rowmax|keep|zero|lazy:(0(\.\d+)?|1(\.0+)?)", self_loop):
        raise ValueError(f"self_loop is rowmax, keep, zero or lazy:<share from 0 to 1>, got {self_loop!r}")
    return float(self_loop.removeprefix("lazy:")) if self_loop.startswith("lazy:") else None


def _known(self_loop: str) -> str:
    lazy_share(self_loop)
    return self_loop


class Knobs(BlockKnobs):
    """The knobs of the diffusion."""

    similarity: Similarity = knob("bhattacharyya", "how the agreement of two neighbourhoods is measured", OURS)
    gamma: NonNegative | Literal["auto"] = knob(
        2.0,
        "power of the agreement; 0: plain attention; larger: more conservative; auto: for each view the least of 1, 2,"
        " 4, ... 32 that halves the number of tokens attended to",
        OURS,
    )
    topk: Annotated[Count | None, Maybe] = knob(
        None, "only so many strongest neighbours count for the agreement; none: all; shared_topk needs it", OURS
    )
    self_loop: Annotated[str, AfterValidator(_known)] = knob(
        "rowmax",
        "what a token keeps beside what it gives: as much as to its strongest neighbour (rowmax), its own attention"
        " (keep), nothing (zero), or all but the share that moves (lazy:<share>)",
        OURS,
    )
    direction: Direction = knob("pull", DIRECTION, OURS)
    sinkhorn_iters: Count = knob(3, SWEEPS, "released, CLIP-ES")
    mode: Mode = knob(
        "power",
        "number of steps: exactly `steps` (power), until a restart (ppr), alpha^t (sum), tau in the mean (heat)",
        OURS,
    )
    steps: Index | Literal["closed"] = knob(2, "number of steps; closed: the limit of mode ppr", OURS)
    alpha: Share = knob(0.9, "share that walks on (mode ppr), weight of a further step (mode sum)", OURS)
    tau: Annotated[float, Field(ge=0, le=100), Number] = knob(2.0, "mean number of steps of mode heat", OURS)
    residual: Share = knob(0.0, "share of the activation that stays as it is", OURS)
    box_mask: Annotated[Share | None, Maybe] = knob(None, BOX_MASK, OURS)
    chunk: Count = knob(8, "rows at a time of js, intersection and jaccard; memory is 3 * chunk * N^2 numbers")

    @model_validator(mode="after")
    def _consistent(self) -> Knobs:
        if self.steps == "closed" and (self.mode != "ppr" or self.alpha == 1):
            raise ValueError(f"steps = closed needs mode = ppr and alpha below 1, got {self.mode} and {self.alpha}")
        if self.similarity == "shared_topk" and self.topk is None:
            raise ValueError("similarity = shared_topk compares sets of topk neighbours; give topk")
        return self


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


def _shared(rows: Tensor, _chunk: int) -> Tensor:
    """Tokens in both supports / tokens in the larger support."""
    members = (rows > 0).to(rows.dtype)
    sizes = members.sum(1)
    return _gram(members) / torch.maximum(sizes[:, None], sizes).clamp_min(1)


def _jaccard(rows: Tensor, chunk: int) -> Tensor:
    overlap = _pairwise(torch.minimum, (rows,), chunk)
    return overlap / (2 - overlap)  # both rows sum to 1, so sum max = 2 - sum min


MEASURES: dict[Similarity, Callable[[Tensor, int], Tensor]] = {
    "bhattacharyya": lambda rows, _: _gram(rows.sqrt()),
    "js": lambda rows, chunk: _pairwise(_js_terms, (rows, torch.xlogy(rows, rows)), chunk),
    "intersection": lambda rows, chunk: _pairwise(torch.minimum, (rows,), chunk),
    "jaccard": _jaccard,
    "cosine": lambda rows, _: _gram(functional.normalize(rows, dim=1)),
    "shared_topk": _shared,
    "none": lambda rows, _: torch.ones_like(rows),
}


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
    if kind not in MEASURES:
        raise ValueError(f"unknown similarity {kind!r}, choose from {get_args(Similarity)}")
    return MEASURES[kind](rows, chunk).clamp_(0, 1).fill_diagonal_(1)


def attended(weights: Tensor) -> Tensor:
    """To how many other tokens a token attends, as the exponential of the entropy; mean over tokens.

    Source: the perplexity of van der Maaten & Hinton (JMLR 2008), "a smooth measure of the effective number of
    neighbours", by which they choose the width of a kernel.
    """
    rows = neighbourhoods(weights.clone().fill_diagonal_(0))
    return torch.special.entr(rows).sum(1).exp().mean()


def refined(attention: Tensor, agreements: Tensor, gamma: float | Literal["auto"]) -> Tensor:
    """A_ij s_ij^gamma; `auto` takes the least of `GAMMAS` that halves the number of tokens attended to, or the last.

    Half means that each token's attention leaves one bit less open: the target knows no label, and attention that is
    already narrow is narrowed as much as attention that is broad (`reconstructed`).
    """
    if gamma != "auto":
        return attention * agreements.pow(gamma)
    most = attended(attention) / 2
    candidates = (attention * agreements.pow(power) for power in GAMMAS)
    return next(
        (weights for weights in candidates if attended(weights) <= most), attention * agreements.pow(GAMMAS[-1])
    )


def conservative(attention: Tensor, knobs: Knobs) -> Tensor:
    """Attention refined by agreement: W_ij = A_ij s_ij^gamma, and the self loops of `knobs.self_loop`.

    Agreement is 1 on the diagonal, so that without care the diagonal gains on everything else and the diffusion
    freezes; hence the self loops have a rule of their own.

    Args:
        attention: (N, N) non-negative, row = query; rows sum to at most 1.
        knobs: similarity, gamma, topk, self_loop and chunk count.

    Returns:
        (N, N) with 0 <= W <= A off the diagonal; with `lazy` the diagonal is zero and `transition` adds it.

    Source: `reconstructed`.
    """
    rows = neighbourhoods(attention, knobs.topk)
    weights = refined(attention, agreement(rows, knobs.similarity, knobs.chunk), knobs.gamma)
    weights.fill_diagonal_(0)
    if knobs.self_loop == "rowmax":
        weights.diagonal().copy_(weights.amax(1))
    elif knobs.self_loop == "keep":
        weights.diagonal().copy_(attention.diagonal())
    return weights


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


def diffuse(activation: Tensor, step: Tensor, knobs: Knobs) -> Tensor:
    """Activation moved along T as `knobs.mode`, steps, alpha and tau say; linear in the activation.

    Args:
        activation: (C, N).
        step: (N, N) from `transition`.
        knobs: see above.

    Returns:
        (C, N) sum_t w_t T^t m with the weights of `step_weights`, or its limit for closed `ppr`.

    Source: `reconstructed`.
    """
    if knobs.steps == "closed":
        return restarted(activation, step, knobs.alpha)
    moved, total = activation, torch.zeros_like(activation)
    for t, weight in enumerate(step_weights(knobs.mode, knobs.steps, knobs.alpha, knobs.tau)):
        moved = moved @ step.mT if t else moved
        total = total + weight * moved
    return total


def adcam(activation: Tensor, attention: Tensor, grid: tuple[int, int], knobs: Knobs) -> Tensor:
    """Attention-based class activation diffusion of one view.

    Args:
        activation: (C, N) float32 in [0, 1].
        attention: (N, N) float32 non-negative, row = query; rows sum to at most 1.
        grid: (h, w) of the N tokens.
        knobs: all of them.

    Returns:
        (C, N): residual * M + (1 - residual) * diffused M; with `box_mask` the boxes mask the sources of the whole
        diffusion, not of each of its steps.

    Source: abstract of arXiv 2211.10931; formulas `reconstructed`.
    """
    weights = conservative(attention, knobs)
    step = transition(weights, knobs.direction, knobs.sinkhorn_iters, lazy_share(knobs.self_loop))
    moved = diffuse(boxed(activation, grid, knobs.box_mask), step, knobs)
    return knobs.residual * activation + (1 - knobs.residual) * moved


def _observed(activation: Tensor, observation: Observation, grid: tuple[int, int], knobs: Knobs) -> Tensor:
    return adcam(activation, observation.read("patches"), grid, knobs)


RULE = Rule(
    _observed,
    Knobs,
    "M' = T^steps M, T = normalised W, W_ij = A_ij s_ij^gamma; abstract of arXiv 2211.10931: `reconstructed`",
    needs=frozenset({"patches"}),
)
