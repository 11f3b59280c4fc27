"""Attention rollout on class activation: attention through all blocks, with the residual connections."""

from __future__ import annotations

from torch import Tensor

from models.propagation.rule import Observation, Rule, RuleKnobs


def rolled(activation: Tensor, observation: Observation, _grid: tuple[int, int], _knobs: RuleKnobs) -> Tensor:
    """The rollout times the activation (C, N)."""
    return activation @ observation.read("rollout").mT


RULE = Rule(
    rolled,
    RuleKnobs,
    "M' = R max(M, 0) / max(M), R = product of (A + I) / 2 (Abnar & Zuidema, ACL 2020: `published`);"
    " on class activation: `reconstructed`",
    needs=frozenset({"rollout"}),
)
