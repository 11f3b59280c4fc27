"""YAML as DVC reads and writes it, version 1.2; PyYAML's own rules are those of 1.1.

So `1e-05` is a number, which DVC writes for `-S '+classifier.optimisation.lr=0.00001'`, and `no` and `12:30` are words.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

from yaml import AliasEvent, MappingNode, Node, SafeLoader, YAMLError
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

WORDS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(?:0|[1-9][0-9]*)",
    "float": r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
}
"""What a word without quotes may be besides text; the first kind that fits counts."""


class _Reader(SafeLoader):
    """A safe reader with these kinds of words alone, without aliases, that takes no key twice."""

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """The next node; aliases, which let a short file grow without end, are refused."""
        if self.check_event(AliasEvent):
            raise ComposerError(None, None, "aliases (*name) are not read", self.peek_event().start_mark)
        node: Node | None = super().compose_node(parent, index)
        return node

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping; a key that stands twice, of which the last would win, is refused."""
        keys = [key.value for key, _ in node.value]
        if twice := [key for key, _ in node.value if keys.count(key.value) > 1]:
            raise ConstructorError(None, None, f"the key {twice[0].value!r} stands twice", twice[1].start_mark)
        return super().construct_mapping(node, deep=deep)


_Reader.yaml_implicit_resolvers = {}
for kind, words in WORDS.items():
    _Reader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(f"^(?:{words})$"), None)


def parsed(text: str) -> Any:
    """What a text in YAML says.

    Raises:
        yaml.YAMLError: it is not YAML, has aliases, or a key twice.
    """
    reader = _Reader(text)
    try:
        return reader.get_single_data()
    except RecursionError as error:
        raise YAMLError("it nests too deeply") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:  # `!!int zero`, a number of 5,000 digits
        raise YAMLError(f"a value is not what its tag says ({str(error) or type(error).__name__})") from error
    finally:
        reader.dispose()
