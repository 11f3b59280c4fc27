"""What a propagation rule is: a pure function from the class activation of one view to a better one, and its knobs.

A rule reads the activation, what was observed of the network's attention, the grid of tokens and its knobs. It declares
what it needs of the attention, so that nothing else is accumulated. Rules on a learned affinity are in
`models.refine.walk`. This module imports no PyTorch, so that rules which move nothing are configured without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from models.knobs import Count, Knobs, knob

if TYPE_CHECKING:
    from torch import Tensor

Need = Literal["patches", "class_token", "rollout"]
"""A part of an `Observation`."""


class RuleKnobs(Knobs):
    """The knobs of a rule; most have none."""

    def blocks_of(self, depth: int) -> range:
        """The blocks whose attention the rule reads, of a network with `depth` of them."""
        return range(depth)


Blocks = Literal["all"] | Count
BLOCKS = "the attention of so many last blocks counts; all: of every block"


class BlockKnobs(RuleKnobs):
    """The knob of rules that read a mean over blocks."""

    blocks: Blocks = knob("all", BLOCKS)

    def blocks_of(self, depth: int) -> range:
        """The last `blocks` of a network with `depth` of them, or all."""
        return range(0 if self.blocks == "all" else max(0, depth - self.blocks), depth)


@dataclass(frozen=True)
class Observation:
    """What was observed of the attention in one view, on its N patch tokens; None for what was not accumulated.

    Attributes:
        patches: (N, N) attention between patches, mean over blocks and heads, row = query. Rows sum to at most 1: the
            rest went to class tokens. Half precision is computed in float32.
        class_token: (N,) attention of the class token to the patches, mean over blocks and heads.
        rollout: (N, N) block of the attention rollout, row = query.
    """

    patches: Tensor | None = None
    class_token: Tensor | None = None
    rollout: Tensor | None = None

    def read(self, part: Need) -> Tensor:
        """One part in float32.

        Raises:
            ValueError: it was not accumulated.
        """
        found: Tensor | None = getattr(self, part)
        if found is None:
            raise ValueError(f"this rule reads {part}, which was not accumulated; see its `needs`")
        return found.float()


K = TypeVar("K", bound=RuleKnobs)


@dataclass(frozen=True)
class Rule(Generic[K]):
    """One way to propagate activation; `models.propagation.apply` runs it.

    Attributes:
        formula: (C, N) float32 activation, observation, (h, w) of the N tokens and knobs to (C, N).
        knobs: the class of its knobs.
        source: the formula in one line, and where it comes from.
        needs: what the formula reads of the attention.
        raw: the formula takes the activation as it is; otherwise rectified, each class divided by its maximum.
        earlier: the activation is not the network's own, but its `Activations.earlier` of this name.
    """

    formula: Callable[[Tensor, Observation, tuple[int, int], K], Tensor]
    knobs: type[K]
    source: str
    needs: frozenset[Need] = frozenset()
    raw: bool = False
    earlier: str | None = None


def unchanged(activation: Tensor, _observation: Observation, _grid: tuple[int, int], _knobs: RuleKnobs) -> Tensor:
    """The formula of rules that move nothing."""
    return activation


def check_grid(grid: tuple[int, int], max_tokens: int) -> None:
    """Refuse grids whose N x N matrices would be too large; to be asked before any attention is computed.

    Raises:
        ValueError: the grid has more than `max_tokens` cells.
    """
    height, width = grid
    if height * width > max_tokens:
        raise ValueError(
            f"a grid of {height} x {width} has {height * width} tokens, more than max_tokens = {max_tokens};"
            " lower the long side of the photographs or the largest scale"
        )
