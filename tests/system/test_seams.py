"""No code asks for a method or a network by name: names stand in the tables of the registry and in presets."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from models import registry
from pipeline.config.code import PACKAGES, TABLES
from pipeline.config.presets import methods
from tests.support import ROOT

TABLE_NAMES = ("BACKBONES", "ENCODERS", "SEGMENTERS", "NETWORKS", "CLASSIFIERS", "METHODS", "AFFINITIES")
NAMES = {name for table in TABLE_NAMES for name in getattr(registry, table)} | set(methods())
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if path != ROOT / TABLES)


def asked(text: str) -> Iterator[str]:
    """Names that some code compares with, matches, or looks for in front of a word."""
    for node in ast.walk(ast.parse(text)):
        parts: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            parts = [*node.args] if node.func.attr in ("startswith", "endswith", "removeprefix") else []
        for part in parts:
            for inner in ast.walk(part):
                if isinstance(inner, ast.Constant) and inner.value in NAMES:
                    yield f"line {inner.lineno}: {inner.value!r}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_asks_for_a_method_by_name(path: Path) -> None:
    assert not list(asked(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "text",
    [
        'if config.network == "bao": pass',
        'if "irn" != network: pass',
        'x = config.network in ("amn", "esol")',
        'x = network in {"toco"}',
        'match network:\n    case "transcam":\n        pass',
        'x = method.startswith("dual_branch")',
    ],
)
def test_such_code_would_be_found(text: str) -> None:
    assert len(list(asked(text))) >= 1
