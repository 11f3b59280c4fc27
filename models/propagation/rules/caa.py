"""CLIP-ES's class-aware attention-based affinity: activation in boxes, moved by powers of symmetrised attention."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from models.knobs import Count, Index, Maybe, Share, knob
from models.propagation.diffusion import BOX_MASK, SWEEPS, boxed, sinkhorn
from models.propagation.rule import BLOCKS, BlockKnobs, Blocks, Observation, Rule


class Knobs(BlockKnobs):
    """The knobs of CLIP-ES, as published for VOC."""

    blocks: Blocks = knob(8, BLOCKS, "released, CLIP-ES")
    steps: Index = knob(2, "power of the matrix; 2 is one squaring", "published, CLIP-ES")
    sinkhorn_iters: Count = knob(3, SWEEPS, "released, CLIP-ES")
    box_mask: Annotated[Share | None, Maybe] = knob(0.4, BOX_MASK, "published, CLIP-ES on VOC; 0.7 on COCO")


def affine(activation: Tensor, observation: Observation, grid: tuple[int, int], knobs: Knobs) -> Tensor:
    """The boxed activation (C, N), `steps` times through the symmetrised attention."""
    step = sinkhorn(observation.read("patches"), knobs.sinkhorn_iters)
    moved = boxed(activation, grid, knobs.box_mask)
    for _ in range(knobs.steps):
        moved = moved @ step  # symmetric
    return moved


RULE = Rule(
    affine,
    Knobs,
    "M' = D^steps (box * M), D = (S + S^T) / 2, S = Sinkhorn-normalised A; CLIP-ES (Lin et al., CVPR 2023):"
    " `published`, sweeps and block count `released`",
    needs=frozenset({"patches"}),
)
