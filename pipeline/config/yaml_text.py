"""YAML as DVC reads and writes it (version 1.2): `1e-05` is a number, `no` a word, and a group holds a key once."""

from __future__ import annotations

from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

__all__ = ["YAMLError", "parsed"]


def parsed(text: str) -> Any:
    """What a text in YAML says.

    Raises:
        YAMLError: it is not YAML.
    """
    return YAML(typ="safe").load(text)
