"""Propagation rules on a network's own attention: one module for each; its file's name is the rule's name."""
