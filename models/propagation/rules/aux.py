"""The map of ToCo's classifier on an earlier block, from the same forward pass."""

from __future__ import annotations

from models.propagation.rule import Rule, RuleKnobs, unchanged

RULE = Rule(
    unchanged,
    RuleKnobs,
    "M' = the map of a classifier on an earlier block; ToCo (Ru et al., CVPR 2023): `released`",
    raw=True,
    earlier="aux",
)
