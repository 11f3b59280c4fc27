"""Knobs for tests: those of the shipped file with some changed, and files with some set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml

from models.knobs import Knobs
from tests.support import ROOT

SHIPPED = ROOT / "params.yaml"


def shipped(**changes: Any) -> dict[str, Any]:
    """What the shipped params.yaml holds with some knobs changed or added; a double underscore enters a group."""
    knobs: dict[str, Any] = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    put(knobs, {name.replace("__", "."): value for name, value in changes.items()})
    return knobs


def set_knobs(path: Path, changes: Mapping[str, Any]) -> None:
    """Set or add knobs, by their dotted names, in a file such as params.yaml."""
    knobs: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    put(knobs, changes)
    path.write_text(yaml.safe_dump(knobs, sort_keys=False, allow_unicode=True), encoding="utf-8")


def put(knobs: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Give knobs in a tree new values by their dotted names; groups that are missing are made."""
    for dotted, value in changes.items():
        *groups, name = dotted.split(".")
        place = knobs
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = value


def words_of(group: type[Knobs], name: str) -> tuple[Any, ...]:
    """All words that a knob allows, so that a test covers new ones too."""
    return get_args(group.model_fields[name].annotation)
