"""Where values come from: defaults, presets, params.yaml; later layers win.

A preset file has the layers `common`, `<profile>` and `<profile>_<data set>`. They apply in this order: those of
`base.yaml`, those of the method that it is `like`, its own, and those of the variant (a row of a paper's table).
`baseline` names the method whose numbers it claims to improve; tables pair the two.

`segmenter` names a recipe: a file in `presets/segmenters` that says how the paper profile trains its segmentation
network and predicts. The last one named counts, and comes before the layers of the file that names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import PydanticUndefined

from models.knobs import Knobs
from pipeline.config.yaml_text import parsed

PRESETS = Path(__file__).parents[1] / "presets"
PROFILES = ("compact", "paper")
RECIPES_FOR = "paper"
"""The profile whose segmentation networks are in recipes; the other one has a network of its own for all methods."""

Tree = dict[str, Any]


class Layer(NamedTuple):
    """Some values, and what a person calls the place that they stand in."""

    name: str
    values: Tree


@cache
def _files() -> dict[str, Tree]:
    """The preset files by name."""
    return {path.stem: parsed(path.read_text(encoding="utf-8")) for path in sorted(PRESETS.glob("*.yaml"))}


@cache
def _recipes() -> dict[str, Tree]:
    """The recipes of segmentation networks by name."""
    paths = sorted((PRESETS / "segmenters").glob("*.yaml"))
    return {path.stem: parsed(path.read_text(encoding="utf-8")) for path in paths}


@cache
def _owners() -> dict[str, str]:
    """For each method the file that describes it: its own, or the one that lists it as a variant."""
    owners = {name: name for name in _files() if name != "base"}
    return owners | {variant: name for name in list(owners) for variant in _files()[name].get("variants", {})}


def methods() -> list[str]:
    """Names of the methods that have a preset."""
    return sorted(_owners())


def owner(method: str) -> str:
    """The preset file that describes a method: its own, or the one whose variant it is."""
    return _owners()[method]


def _sources(method: str) -> Iterator[Layer]:
    """The preset of a method as whole files, what it is `like` first."""
    file = owner(method)
    own = _files()[file]
    variant = own["variants"][method] if method != file else {}
    if like := variant.get("like", own.get("like")):
        yield from _sources(like)
    yield Layer(f"{file}.yaml", own)
    if variant:
        yield Layer(f"{file}.yaml {method}", variant)


def baseline(method: str) -> str | None:
    """The method that a method claims to improve; none where its preset names none, or there is no such method."""
    if (owner := _owners().get(method)) is None:
        return None
    own = _files()[owner]
    named: str | None = own.get("variants", {}).get(method, own).get("baseline", own.get("baseline"))
    return named


def layers(method: str, profile: str, data_name: str) -> list[Layer]:
    """What the presets give for a method, profile and data set, in the order in which they apply."""
    parts = ("common", profile, f"{profile}_{data_name}")
    files = [Layer("base.yaml", _files()["base"]), *_sources(method)]
    last = max(number for number, file in enumerate(files) if "segmenter" in file.values)
    found: list[Layer] = []
    for number, file in enumerate(files):
        if number == last and profile == RECIPES_FOR:
            name = file.values["segmenter"]
            found.append(Layer(f"segmenters/{name}.yaml", _recipes()[name]))
        found += [Layer(f"{file.name} {part}", file.values[part]) for part in parts if file.values.get(part)]
    return found


def imports(raw: Tree) -> list[Layer]:
    """What follows where maps or masks come from other programs: nothing is trained for them."""
    groups = [group for group in ("cams", "masks") if isinstance(raw.get(group), dict)]
    return [
        Layer(f"imported/{group}.yaml", parsed((PRESETS / f"imported/{group}.yaml").read_text(encoding="utf-8")))
        for group in groups
        if raw[group].get("source") == "import"
    ]


def merge(low: Tree, high: Tree) -> Tree:
    """`high` over `low`, group by group; a group that `high` leaves empty sets nothing."""
    merged = dict(low)
    for key, value in high.items():
        group = isinstance(merged.get(key), dict) and (value is None or isinstance(value, dict))
        merged[key] = merge(merged[key], value or {}) if group else value
    return merged


def defaults(group: type[Knobs]) -> Tree:
    """The published defaults that a group declares; knobs without one are left out."""
    found: Tree = {}
    for name, field in group.model_fields.items():
        if field.default is not PydanticUndefined:
            found[name] = field.default.model_dump() if isinstance(field.default, Knobs) else field.default
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Knobs):
            found[name] = defaults(field.annotation)
    return found


def given(knobs: Tree) -> Tree:
    """What params.yaml sets: all but the word `preset`, which leaves a knob to the layers below."""
    return {
        key: given(value) if isinstance(value, dict) else value for key, value in knobs.items() if value != "preset"
    }
