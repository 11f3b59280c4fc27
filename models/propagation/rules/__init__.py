"""The propagation rules. Every module here is one: its file's name is the rule's, and it holds a `RULE`."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from models.propagation.rule import Rule


def rule_names() -> list[str]:
    """All rules, by name."""
    return sorted(module.name for module in iter_modules(__path__))


def rule_module(name: str) -> str:
    """The module of a rule.

    Raises:
        ValueError: there is no such rule; all that there are are named.
    """
    if name not in rule_names():
        raise ValueError(f"no rule {name!r}; allowed are {', '.join(rule_names())}")
    return f"{__name__}.{name}"


def load_rule(name: str) -> Rule[Any]:
    """A rule by its name; only its own module is imported.

    Raises:
        ValueError: see `rule_module`.
    """
    rule: Rule[Any] = import_module(rule_module(name)).RULE
    return rule
