"""The network's own map."""

from __future__ import annotations

from models.propagation.rule import Rule, RuleKnobs, unchanged

RULE = Rule(unchanged, RuleKnobs, "M' = M, the network's own map", raw=True)
