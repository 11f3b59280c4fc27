"""The documentation: its links resolve, its commands name knobs that exist, its tables show knobs as declared."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from pipeline.config.presets import methods

from tests.support import ROOT
from tools.cards import all_knobs, filled

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
SETTING = re.compile(r"^(\+?)([a-z_]+(?:\.[a-z_0-9]+)*)=")
LONGEST_README = 200

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """What links to headings of a page may end with, as GitHub makes them."""
    headings = HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {word.strip().replace(" ", "-") for word in words}


def settings(page: Path) -> list[str]:
    """Every `-S` of a page, in blocks of code and in lines of text."""
    text = page.read_text(encoding="utf-8")
    blocks = [line for block in FENCE.findall(text) for line in block.splitlines()]
    commands = [*blocks, *(code.strip("`") for code in CODE.findall(FENCE.sub("", text)))]
    found = []
    for command in commands:
        if "-S" in command:
            words = shlex.split(command, comments=True)
            found += [after for word, after in pairwise(words) if word == "-S"]
    return found


def value_at(tree: Any, dotted: str) -> Any:
    """A value of nested mappings; None where there is none."""
    for key in dotted.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


@pages
def test_relative_links_resolve(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT) and target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pages
def test_settings_name_knobs_and_have_a_plus_where_they_need_one(page: Path) -> None:
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    known = {row.name for row in all_knobs()}
    for setting in settings(page):
        match = SETTING.match(setting)
        assert match, setting
        plus, knob = match.groups()
        assert knob in known, setting
        assert bool(plus) == (value_at(shipped, knob) is None), f"{setting}: a plus is for knobs not in params.yaml"


@pages
def test_tables_show_knobs_as_declared(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert filled(text, all_knobs()) == text, "run `make cards`"


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LONGEST_README


def test_every_method_has_a_card_or_stands_in_one() -> None:
    cards = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs/methods").glob("*.md")}
    missing = [
        name for name in methods() if name not in cards and not any(f"`{name}`" in card for card in cards.values())
    ]
    assert not missing, missing


def test_readme_links_every_card() -> None:
    linked = set(LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert {f"docs/methods/{path.name}" for path in (ROOT / "docs/methods").glob("*.md")} <= linked
