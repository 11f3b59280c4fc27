"""Every knob with its value for a method and profile, the place that gave it, what is allowed, and its meaning.

`python -m tools.knobs` (or `make knobs`) reads params.yaml; `--method` and `--profile` stand in for what it says there.
Words choose knobs whose dotted name contains one of them: `make knobs KNOBS=toco METHOD=dual_branch`. Of propagation
rules those that are asked for are shown, and those that a word names.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from models.propagation.rules import rule_names
from pipeline.config.explain import KnobRow, knob_rows, nearest, value_text
from pipeline.config.load import all_layers, read_params, resolve
from pipeline.config.params import Params
from pipeline.config.presets import PROFILES, Layer, methods
from pipeline.run.errors import UserError
from pipeline.run.stage import run_stage

WIDTH = 118


class Setting(NamedTuple):
    """A knob as declared, its value here, and the place that gave it."""

    row: KnobRow
    value: str
    given_by: str


def main() -> None:
    """Print what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="parts of dotted names; none: all knobs")
    parser.add_argument("--method", choices=methods())
    parser.add_argument("--profile", choices=PROFILES)
    arguments = parser.parse_args()
    raw = read_params()
    for key in ("method", "profile"):
        if (word := getattr(arguments, key)) is not None:
            raw[key] = word
    for setting in chosen(raw, arguments.words):
        print(described(setting))


def chosen(raw: Any, words: Sequence[str]) -> list[Setting]:
    """The knobs whose dotted name contains one of some words; all where there is no word.

    Args:
        raw: what YAML gave for params.yaml.
        words: parts of dotted names.

    Raises:
        UserError: no name contains one of them, or params.yaml cannot be used.
    """
    rules = [rule for rule in rule_names() if any(rule in word.split(".") for word in words)]
    matching = [one for one in settings(raw, rules) if not words or any(word in one.row.name for word in words)]
    if not matching:
        raise UserError(f"no knob's name contains {' or '.join(words)}; {nearest(words[0])}")
    return matching


def settings(raw: Any, rules: Sequence[str] = ()) -> Iterator[Setting]:
    """Every knob that the configuration has, in its order.

    Args:
        raw: what YAML gave for params.yaml.
        rules: propagation rules whose knobs are given beside those of the rules that are asked for.

    Raises:
        UserError: it cannot be used.
    """
    params, places = resolve(raw), all_layers(raw)
    tree = params.model_dump(mode="json")
    for row in knob_rows(Params):
        if row.name == "cams.rule_knobs":
            yield from rule_settings(params, places, rules)
        else:
            yield Setting(row, value_text(found(tree, row.name)), given_by(places, row.name))


def rule_settings(params: Params, places: list[Layer], rules: Sequence[str]) -> Iterator[Setting]:
    """The knobs of the propagation rules that are asked for and of others, as an entry without its own has them."""
    asked = [params.cams.rule(text)[0] for text in params.cams.rules]
    for name in dict.fromkeys([*asked, *rules]):
        knobs = params.cams.rule(name)[1]
        for row in knob_rows(type(knobs), f"cams.{name}"):
            value = found(knobs.model_dump(mode="json"), row.name.removeprefix(f"cams.{name}."))
            yield Setting(row, value_text(value), given_by(places, row.name))


def found(tree: Any, name: str) -> Any:
    """The value at a dotted name."""
    for key in name.split("."):
        tree = tree[key]
    return tree


def given_by(places: list[Layer], name: str) -> str:
    """The last place that gives a value for a knob."""
    missing = object()
    for place in reversed(places):
        tree: Any = place.values
        for key in name.split("."):
            tree = tree.get(key, missing) if isinstance(tree, dict) else missing
        if tree is not missing:
            return place.name
    return "default"


def described(setting: Setting) -> str:
    """A knob in a few lines."""
    row = setting.row
    first = f"{row.name} = {setting.value}  ({setting.given_by})"
    source = f" [{row.source}]" if row.source else ""
    lines = textwrap.wrap(f"{row.meaning}{source}; allowed: {row.allowed}", WIDTH - 4)
    return "\n".join([first, *(f"    {line}" for line in lines)])


if __name__ == "__main__":
    run_stage(main)
