"""The map after ESOL's first sampler, from the same forward pass."""

from __future__ import annotations

from models.propagation.rule import Rule, RuleKnobs, unchanged

RULE = Rule(
    unchanged,
    RuleKnobs,
    "M' = the map after the first sampler; ESOL (NeurIPS 2022): `published`",
    raw=True,
    earlier="expansion",
)
