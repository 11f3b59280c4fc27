"""The documentation: its links resolve, its commands name knobs that exist, its tables show knobs as declared."""

from __future__ import annotations

import re
import shlex
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.load import resolve
from pipeline.config.presets import methods
from tests.support import ROOT
from tools.cards import all_knobs, filled

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
SETTING = re.compile(r"^(\+?)([a-z_]+(?:\.[a-z_0-9]+)*)=(.*)$")
RUN = re.compile(r"dvc exp run -S (?!.*sharpened)")
"""One experiment; the rule `sharpened` exists in the test of adding_a_method.md alone."""
LONGEST_README = 200

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """What links to headings of a page may end with, as GitHub makes them."""
    headings = HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {word.strip().replace(" ", "-") for word in words}


def commands(page: Path) -> list[str]:
    """Every command of a page, in blocks of code and in lines of text."""
    text = page.read_text(encoding="utf-8")
    blocks = [line.strip() for block in FENCE.findall(text) for line in block.splitlines()]
    return [*blocks, *(code.strip("`") for code in CODE.findall(FENCE.sub("", text)))]


def settings(command: str) -> list[tuple[str, str, str]]:
    """The `-S` of a command: a plus or nothing, knob, value."""
    words = shlex.split(command, comments=True) if "-S " in command else []
    found = [SETTING.match(after) for word, after in pairwise(words) if word == "-S"]
    assert all(found), command
    return [(match[1], match[2], match[3]) for match in found if match]


def value_at(tree: Any, dotted: str) -> Any:
    """A value of nested mappings; None where there is none."""
    for key in dotted.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def shipped_params() -> Any:
    return yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


@pages
def test_relative_links_resolve(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT) and target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("command", [command for page in PAGES for command in commands(page) if "-S " in command])
def test_settings_name_knobs_and_have_a_plus_where_they_need_one(command: str) -> None:
    shipped, known = shipped_params(), {row.name for row in all_knobs()}
    assert settings(command)
    for plus, knob, _ in settings(command):
        assert knob in known
        assert bool(plus) == (value_at(shipped, knob) is None), "a plus is for knobs that are not in params.yaml"


@pytest.mark.parametrize("command", [line for page in PAGES for line in commands(page) if RUN.match(line)])
def test_experiments_have_a_configuration(command: str) -> None:
    raw = shipped_params()
    for _, knob, value in settings(command):
        *groups, leaf = knob.split(".")
        reduce(lambda tree, group: tree.setdefault(group, {}), groups, raw)[leaf] = yaml.safe_load(value)
    resolve(raw)


@pages
def test_tables_show_knobs_as_declared(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert filled(text, all_knobs()) == text, "run `make cards`"


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LONGEST_README


def test_every_method_has_a_card_or_stands_in_one() -> None:
    cards = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs/methods").glob("*.md")}
    mentioned = {word for card in cards.values() for word in re.findall(r"`(\w+)`", card)}
    assert set(methods()) <= cards.keys() | mentioned


def test_readme_links_every_card() -> None:
    linked = set(LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert {f"docs/methods/{path.name}" for path in (ROOT / "docs/methods").glob("*.md")} <= linked
