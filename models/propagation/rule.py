"""Propagation rules on a network's own attention: from the class activation of one view to a better one.

A rule is a pure function of the activation, the attention, the token grid and the settings; it declares what part of
the attention it needs, so that nothing else is accumulated. Rules on a learned affinity are in `models.refine.walk`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models.networks.attention import AttentionRollout, AttentionSum, Observer
from models.propagation.adcam import adcam, boxed, restarted, sinkhorn, transition
from models.propagation.knobs import Settings

Need = Literal["attention", "class_token", "rollout"]


@dataclass(frozen=True)
class Attention:
    """What the rules read of one view of one image, on the N patch tokens; None for what was not accumulated.

    Attributes:
        patches: (N, N) attention between patches, mean over blocks and heads, row = query. Rows sum to at most 1: the
            rest went to class tokens. Half precision is computed in float32.
        class_token: (N,) attention of the class token to the patches, mean over blocks and heads.
        rollout: (N, N) block of the attention rollout, row = query.
    """

    patches: Tensor | None = None
    class_token: Tensor | None = None
    rollout: Tensor | None = None


Propagate = Callable[[Tensor, Attention, tuple[int, int], Settings], Tensor]


def _given(part: Tensor | None) -> Tensor:
    """A part of the attention in float32."""
    if part is None:
        raise ValueError("this rule reads a part of the attention that was not accumulated; see its `needs`")
    return part.float()


@dataclass(frozen=True)
class Rule:
    """One way to propagate activation.

    Attributes:
        formula: the rule on float32 input of the right shape.
        source: the formula in one line, and where it comes from.
        needs: what the formula reads of the attention.
        raw: the formula takes the activation as it is; otherwise rectified, each class divided by its maximum.
        blocks: number of last blocks whose attention the rule takes by default; None for all.
        earlier: the activation is not the network's own, but its `Activations.earlier` of this name.
    """

    formula: Propagate
    source: str
    needs: frozenset[Need] = frozenset({"attention"})
    raw: bool = False
    blocks: int | None = None
    earlier: str | None = None

    def block_numbers(self, depth: int) -> range:
        """The blocks to accumulate, of a network with `depth` of them."""
        return range(max(0, depth - self.blocks) if self.blocks else 0, depth)

    @torch.no_grad()
    def propagate(self, activation: Tensor, attention: Attention, grid: tuple[int, int], settings: Settings) -> Tensor:
        """Propagate the class activation of one view.

        Args:
            activation: (C, N) floating point, before ReLU, one row for each class that is present; C = 0 is allowed.
            attention: what the rule needs, on the activation's device.
            grid: (h, w) with h * w = N, tokens in row order.
            settings: the knobs.

        Returns:
            (C, N) float32, computed in float32 even under autocast. Neither rectified at the end nor min-max
            normalised: the caller first adds up views and scales.

        Raises:
            ValueError: the shapes do not fit, the grid is too large, or the attention lacks a part.
        """
        check_grid(grid, settings.max_tokens if self.needs & {"attention", "rollout"} else None)
        if activation.dim() != 2 or activation.shape[1] != grid[0] * grid[1]:
            raise ValueError(f"activation of shape {tuple(activation.shape)} does not fit a grid of {grid}")
        activation = activation.float()
        with torch.autocast(activation.device.type, enabled=False):
            return self.formula(activation if self.raw else rectified(activation), attention, grid, settings)


def check_grid(grid: tuple[int, int], max_tokens: int | None) -> None:
    """Refuse grids whose N x N matrices would be too large; worth asking before any attention is computed.

    Raises:
        ValueError: the grid has more than `max_tokens` cells.
    """
    height, width = grid
    if max_tokens is not None and height * width > max_tokens:
        raise ValueError(
            f"a grid of {height} x {width} has {height * width} tokens, more than max_tokens = {max_tokens};"
            " lower the long side of the photographs or the largest scale"
        )


def rectified(activation: Tensor) -> Tensor:
    """ReLU, then each class divided by its maximum: (C, N) in [0, 1], all zero for a class that is nowhere positive."""
    positive = activation.relu()
    return positive / positive.amax(1, keepdim=True).clamp_min(torch.finfo(positive.dtype).tiny)


def _none(activation: Tensor, _attention: Attention, _grid: tuple[int, int], _settings: Settings) -> Tensor:
    return activation


def _tscam(activation: Tensor, attention: Attention, _grid: tuple[int, int], _settings: Settings) -> Tensor:
    return activation * _given(attention.class_token)


def _coupled(activation: Tensor, attention: Attention, _grid: tuple[int, int], _settings: Settings) -> Tensor:
    return activation @ _given(attention.patches).mT


def _coupled_transposed(
    activation: Tensor, attention: Attention, _grid: tuple[int, int], _settings: Settings
) -> Tensor:
    return activation @ _given(attention.patches)


def _rollout(activation: Tensor, attention: Attention, _grid: tuple[int, int], _settings: Settings) -> Tensor:
    return activation @ _given(attention.rollout).mT


def _caa(activation: Tensor, attention: Attention, grid: tuple[int, int], settings: Settings) -> Tensor:
    """Class-aware attention-based affinity: sources inside boxes, moved by powers of the symmetrised attention."""
    if settings.steps == "closed":
        raise ValueError("caa raises a matrix to the power `steps`; give a number instead of closed")
    step = sinkhorn(_given(attention.patches), settings.sinkhorn_iters)
    moved = boxed(activation, grid, settings.box_mask)
    for _ in range(settings.steps):
        moved = moved @ step  # symmetric
    return moved


def _ppr(activation: Tensor, attention: Attention, _grid: tuple[int, int], settings: Settings) -> Tensor:
    """Personalised PageRank on the plain attention, in closed form whatever `settings.steps` is."""
    step = transition(_given(attention.patches), settings.direction, settings.sinkhorn_iters)
    return restarted(activation, step, settings.alpha)


def _adcam(activation: Tensor, attention: Attention, grid: tuple[int, int], settings: Settings) -> Tensor:
    return adcam(activation, _given(attention.patches), grid, settings)


class Observed:
    """What some rules need of the attention of one forward pass, accumulated while the network runs.

    Rules with the same blocks share one buffer; nothing is accumulated that no rule reads.
    """

    def __init__(self, needs: Iterable[tuple[frozenset[Need], range]], tokens: int) -> None:
        """`needs`: of each rule, with the blocks that it reads; `tokens`: class tokens before the patch tokens."""
        self.tokens = tokens
        self.sums: dict[range, AttentionSum] = {}
        self.rollout: AttentionRollout | None = None
        for need, blocks in needs:
            if need & {"attention", "class_token"}:
                self.sums.setdefault(blocks, AttentionSum(blocks))
            if "rollout" in need:
                self.rollout = self.rollout or AttentionRollout()

    @property
    def observers(self) -> list[Observer]:
        """What the network calls for each block."""
        return [*self.sums.values(), *([self.rollout] if self.rollout else [])]

    def attention(self, view: int, blocks: range) -> Attention:
        """What a rule on these blocks reads of one view of the batch."""
        mean = self.sums[blocks].mean(view) if blocks in self.sums else None
        walked = self.rollout.product[view] if self.rollout and self.rollout.product is not None else None
        first = self.tokens
        return Attention(
            patches=None if mean is None else mean[first:, first:],
            class_token=None if mean is None or not first else mean[:first, first:].mean(0),
            rollout=None if walked is None else walked[first:, first:],
        )


def _taken(name: str, source: str) -> Rule:
    """The rule that takes a network's earlier maps of that name as they are."""
    return Rule(_none, source, needs=frozenset(), raw=True, earlier=name)


RULES: dict[str, Rule] = {
    "none": Rule(_none, "M' = M, the classifier's own map", needs=frozenset(), raw=True),
    "aux": _taken("aux", "M' = the map of a classifier on an earlier block; ToCo (Ru et al., CVPR 2023): `released`"),
    "baseline": _taken("baseline", "M' = the classifier's map, before any sampler; ESOL (NeurIPS 2022): `published`"),
    "expansion": _taken("expansion", "M' = the map after the first sampler; ESOL (NeurIPS 2022): `published`"),
    "tscam": Rule(
        _tscam,
        "M' = a * M, a = class-token attention, the mean for the sum over blocks;"
        " TS-CAM (Gao et al., ICCV 2021) and TransCAM's `clsattn`: `released`",
        needs=frozenset({"class_token"}),
        raw=True,
    ),
    "transcam": Rule(
        _coupled,
        "M' = A M, the mean for the sum over blocks, a constant factor; TransCAM (Li et al. 2023, eq. 5): `published`",
        raw=True,
    ),
    "transcam_transposed": Rule(
        _coupled_transposed, "M' = A^T M, otherwise as transcam; TransCAM's `attnagg`: `released`", raw=True
    ),
    "mct_patch": Rule(
        _coupled,
        "M' = A max(M, 0) / max(M); patch affinity of MCTformer (Xu et al., CVPR 2022), on any map: `released`",
    ),
    "rollout": Rule(
        _rollout,
        "M' = R max(M, 0) / max(M), R = product of (A + I) / 2 (Abnar & Zuidema, ACL 2020: `published`);"
        " on class activation: `reconstructed`",
        needs=frozenset({"rollout"}),
    ),
    "caa": Rule(
        _caa,
        "M' = D^steps (box * M), D = (S + S^T) / 2, S = Sinkhorn-normalised A; CLIP-ES (Lin et al., CVPR 2023):"
        " `published`, sweeps and block count `released`",
        blocks=8,
    ),
    "ppr": Rule(_ppr, "M' = (1 - alpha) (I - alpha T)^-1 M, T = normalised A; personalised PageRank: `reconstructed`"),
    "adcam": Rule(
        _adcam,
        "M' = T^steps M, T = normalised W, W_ij = A_ij s_ij^gamma; abstract of arXiv 2211.10931: `reconstructed`",
    ),
}
