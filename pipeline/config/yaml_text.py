"""YAML as DVC reads and writes it, version 1.2; PyYAML's own rules are those of 1.1.

So `1e-05` is a number, which DVC writes for `-S '+classifier.optimisation.lr=0.00001'`, and `no` and `12:30` are words.
"""

from __future__ import annotations

import re
from typing import Any

from yaml import SafeLoader

WORDS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(?:0|[1-9][0-9]*)",
    "float": r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
}
"""What a word without quotes may be besides text; the first kind that fits counts."""


class _Reader(SafeLoader):
    """A safe reader with these kinds of words alone."""


_Reader.yaml_implicit_resolvers = {}
for kind, words in WORDS.items():
    _Reader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(f"^(?:{words})$"), None)


def parsed(text: str) -> Any:
    """What a text in YAML says.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    reader = _Reader(text)
    try:
        return reader.get_single_data()
    finally:
        reader.dispose()
