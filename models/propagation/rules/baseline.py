"""The map of the classifier below ESOL's samplers, from the same forward pass."""

from __future__ import annotations

from models.propagation.rule import Rule, RuleKnobs, unchanged

RULE = Rule(
    unchanged,
    RuleKnobs,
    "M' = the classifier's map, before any sampler; ESOL (NeurIPS 2022): `published`",
    raw=True,
    earlier="baseline",
)
