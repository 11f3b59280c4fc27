"""Propagation rules on a network's own attention: what a rule is, how it is applied, and `rules`, the rules."""
