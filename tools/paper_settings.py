"""The table of the paper profile's resolved settings, in `docs/paper_settings.md`: value, methods, source.

`make cards` (or `python -m tools.paper_settings`) writes the rows anew and keeps the sources that stand there. A value
that no source is known of gets `?`, which a test refuses. Listed is what a preset sets, and what a declaration of a
knob has a source for, of all that the stages of a method use on VOC 2012; other knobs are switches that are off. A
variant stands where it differs from the preset that it is a row of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from models.refine.knobs import NEEDS
from pipeline.config.explain import KnobRow, value_text
from pipeline.config.load import resolve
from pipeline.config.presets import Tree, layers, merge, methods, owner
from pipeline.config.stages import stage_configs
from pipeline.run.files import write_text
from pipeline.run.stage import run_stage
from tools.cards import all_knobs, escaped
from tools.status import leaves

PAGE = Path("docs/paper_settings.md")
DATA = "voc2012"
PLACE = re.compile(r"(<!-- paper settings: (?P<group>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
ROW = re.compile(r"^\| `(?P<knob>[\w.]+)` \| (?P<value>.*?) \| (?P<methods>.*?) \| (?P<source>.*?) \|$", re.MULTILINE)
HEADER = ("| knob | value | methods | source |", "|---|---|---|---|")
STAGES = {
    "prepare_data": "data",
    "train_classifier": "classifier",
    "train_localizer": "localizer",
    "extract_cams": "cams",
    "train_affinity": "affinity",
    "refine_cams": "refine",
    "choose_background": "",
    "make_masks": "masks",
    "train_segmenter": "segmenter",
    "predict": "predict",
}
"""The stages whose knobs are listed, and the group that these have in params.yaml."""

WALKS = ("radius", "border", "beta", "log2_steps", "power", "alpha", "tolerance")
COLOURS = ("iterations", "dilations")
"""Knobs of `refine` that rules with, and rules without a learned affinity read."""

NO_WORK = ("none", "localizer")
"""Networks and rules without which a stage has nothing to do."""


class Setting(NamedTuple):
    """A value of a knob."""

    knob: str
    value: str


def main() -> None:
    """Write the page."""
    write_text(PAGE, filled(PAGE.read_text(encoding="utf-8")))


def filled(page: str) -> str:
    """The page with its rows as they are now; sources that stand there are kept."""
    found = settings()
    kept = {Setting(row["knob"], row["value"]): row["source"] for row in ROW.finditer(page)}
    declared = {row.name: row for row in all_knobs()}
    return PLACE.sub(lambda place: f"{place[1]}{table(place['group'], found, kept, declared)}\n{place[3]}", page)


def table(group: str, found: dict[Setting, list[str]], kept: dict[Setting, str], declared: dict[str, KnobRow]) -> str:
    """The rows of one group; a knob outside all groups belongs to `masks`."""
    rows = []
    for setting, names in sorted(found.items()):
        if (setting.knob.partition(".")[0] if "." in setting.knob else "masks") == group:
            own = declared.get(setting.knob)
            known = own.source if own is not None and escaped(own.default) == setting.value else ""
            source = known or kept.get(setting, "?")
            rows.append(f"| `{setting.knob}` | {setting.value} | {', '.join(names)} | {source} |")
    return "\n".join([*HEADER, *rows])


def settings() -> dict[Setting, list[str]]:
    """Every value that counts, with the methods that have it."""
    found: dict[Setting, list[str]] = {}
    sourced = {row.name for row in all_knobs() if row.source}
    for method in sorted(methods(), key=lambda name: (owner(name) != name, name)):
        given: Tree = reduce(merge, (layer.values for layer in layers(method, "paper", DATA)), {})
        named = set(leaves(given))
        for knob, value in used(method):
            if value is not None and knob in named | sourced:
                names = found.setdefault(Setting(knob, escaped(value_text(value))), [])
                if owner(method) not in names:
                    names.append(method)
    return found


def used(method: str) -> Iterator[tuple[str, Any]]:
    """Dotted names and values of the knobs that the stages of a method's paper preset use."""
    params = resolve({"method": method, "profile": "paper", "data": {"name": DATA, "root": "."}})
    told = stage_configs(params)
    for stage, group in STAGES.items():
        knobs = {key: value for key, value in told[stage].items() if key not in ("code", "protocol")}
        if alone := [key for key in ("network", "rule") if knobs.get(key) in NO_WORK]:
            knobs = {key: knobs[key] for key in alone}
        if stage == "refine_cams":
            unread = COLOURS if knobs["rule"] in NEEDS else WALKS
            knobs = {key: value for key, value in knobs.items() if key not in unread}
        for name, value in leaves(knobs).items():
            yield f"{group}.{_as_typed(name)}".removeprefix("."), value
    for name, value in params.precision.model_dump().items():
        yield f"precision.{name}", value


def _as_typed(name: str) -> str:
    """The name that a knob has in params.yaml, of the one that a stage is told."""
    return name.removeprefix("groups.").replace("source.", f"{DATA}.")


if __name__ == "__main__":
    run_stage(main)
