"""Knobs of the propagation rules, checked; no PyTorch here, so that a configuration is checked in no time."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

PropagationRule = Literal[
    "none",
    "tscam",
    "transcam",
    "transcam_transposed",
    "mct_patch",
    "rollout",
    "caa",
    "ppr",
    "adcam",
    "aux",
    "baseline",
    "expansion",
]
# Rules that take other maps of the network than its own: maps of an earlier block or stage, from the same forward pass.
# Each with the `localizer.rule` that trains networks that have them.
EARLIER: dict[PropagationRule, str] = {"aux": "toco", "baseline": "esol", "expansion": "esol"}
# The knobs that each rule reads besides max_tokens; adcam reads all.
READS: dict[PropagationRule, tuple[str, ...]] = {
    "none": (),
    **dict.fromkeys(EARLIER, ()),
    "tscam": ("blocks",),
    "transcam": ("blocks",),
    "transcam_transposed": ("blocks",),
    "mct_patch": ("blocks",),
    "rollout": (),
    "caa": ("blocks", "steps", "sinkhorn_iters", "box_mask"),
    "ppr": ("blocks", "direction", "sinkhorn_iters", "alpha"),
}
# Published defaults of rules other than adcam, where they differ from `Settings`: CLIP-ES on VOC.
PUBLISHED: dict[PropagationRule, dict[str, float]] = {"caa": {"steps": 2, "box_mask": 0.4}}
Similarity = Literal["bhattacharyya", "js", "intersection", "jaccard", "cosine", "shared_topk", "none"]
Direction = Literal["pull", "push_row", "push_col", "sinkhorn"]
Mode = Literal["power", "ppr", "heat", "sum"]
Steps = int | Literal["closed"]

SELF_LOOP = r"^(rowmax|keep|zero|lazy:(0(\.\d+)?|1(\.0+)?))$"
LONGEST_TAU = 100.0


def lazy_share(self_loop: str) -> float | None:
    """The share b of `lazy:<b>`, in [0, 1]; None for the other words.

    Raises:
        ValueError: the word is none that `SELF_LOOP` matches.
    """
    if not re.fullmatch(SELF_LOOP, self_loop):
        raise ValueError(f"self_loop is rowmax, keep, zero or lazy:<share from 0 to 1>, got {self_loop!r}")
    return float(self_loop.removeprefix("lazy:")) if self_loop.startswith("lazy:") else None


@dataclass(frozen=True)
class Settings:
    """The knobs of the propagation rules. Without other mention only AD-CAM reads them; see `READS`.

    Attributes:
        similarity: how the agreement s of two neighbourhoods is measured; see `adcam.agreement`.
        gamma: power of the agreement, at least 0; 0 leaves the attention as it is, larger is more conservative.
        topk: neighbours of each token that count for the agreement; None for all. `shared_topk` needs it.
        self_loop: what a token keeps, relative to the refined attention: as much as it gives its strongest other
            neighbour (`rowmax`), its own attention (`keep`), nothing (`zero`), or a fixed share: `lazy:<b>` moves
            the share b and keeps 1 - b.
        direction: how the weights are normalised; see `adcam.transition`. Also of ppr.
        sinkhorn_iters: sweeps of `adcam.sinkhorn`, at least 1. Also of ppr and caa.
        mode: how many steps are taken; see `adcam.step_weights`.
        steps: number of steps, at least 0; `closed` is the limit of `ppr`. Also of caa, whose matrix it raises to
            this power: 2 is one squaring.
        alpha: share that walks on (`ppr`) or weight of a further step (`sum`), in [0, 1]. Also of the rule ppr.
        tau: mean number of steps of `heat`, in [0, 100].
        residual: share of the activation that is kept aside and added again, in [0, 1].
        box_mask: only tokens inside the boxes of a class give activation; see `adcam.source_boxes`. None is off. Also
            of caa, where CLIP-ES takes 0.4 on VOC and 0.7 on COCO.
        chunk: rows at a time of js, intersection and jaccard; working memory is about 3 * chunk * N^2 numbers.
        max_tokens: largest grid that rules with an N x N matrix accept.

    Raises:
        ValueError: a number is out of range, or two knobs contradict each other.
    """

    similarity: Similarity = "bhattacharyya"
    gamma: float = 2.0
    topk: int | None = None
    self_loop: str = "rowmax"
    direction: Direction = "pull"
    sinkhorn_iters: int = 3
    mode: Mode = "power"
    steps: Steps = 2
    alpha: float = 0.9
    tau: float = 2.0
    residual: float = 0.0
    box_mask: float | None = None
    chunk: int = 8
    max_tokens: int = 4096

    def __post_init__(self) -> None:
        shares = (self.alpha, self.residual, 0.0 if self.box_mask is None else self.box_mask)
        counts = (self.sinkhorn_iters, self.chunk, self.max_tokens, 1 if self.topk is None else self.topk)
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError(f"alpha, residual and box_mask are from 0 to 1, got {shares}")
        if min(counts) < 1:
            raise ValueError(f"sinkhorn_iters, chunk, max_tokens and topk are at least 1, got {counts}")
        if not (0 <= self.gamma < math.inf and 0 <= self.tau <= LONGEST_TAU):
            raise ValueError(f"gamma is at least 0 and tau from 0 to {LONGEST_TAU:g}, got {self.gamma} and {self.tau}")
        if self.steps != "closed" and self.steps < 0:
            raise ValueError(f"steps is a number from 0, or closed, got {self.steps}")
        if self.steps == "closed" and (self.mode != "ppr" or self.alpha == 1):
            raise ValueError(f"steps = closed needs mode = ppr and alpha below 1, got {self.mode} and {self.alpha}")
        if self.similarity == "shared_topk" and self.topk is None:
            raise ValueError("similarity = shared_topk compares sets of topk neighbours; give topk")
        lazy_share(self.self_loop)
