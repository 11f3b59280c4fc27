"""Fill the tables of knobs in `docs/` from their declarations, so that no default or bound there is typed by hand.

`python -m tools.cards` (or `make cards`) rewrites, in every page and for any group of knobs, what stands between
`<!-- knobs: localizer.bao -->` and `<!-- end -->`. A test fails where that is not up to date.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from models.propagation.rules import load_rule, rule_names
from pipeline.config.explain import KnobRow, knob_rows
from pipeline.config.params import Params
from pipeline.run.errors import UserError
from pipeline.run.files import write_text
from pipeline.run.stage import run_stage

DOCS = Path("docs")
PLACE = re.compile(r"(<!-- knobs: (?P<group>[\w.]+) -->\n).*?(<!-- end -->)", re.DOTALL)
HEADER = ("| knob | default | allowed | meaning | source of the default |", "|---|---|---|---|---|")


def main() -> None:
    """Rewrite the pages.

    Raises:
        UserError: a page names a group that does not exist.
    """
    knobs = all_knobs()
    for path in sorted(DOCS.rglob("*.md")):
        write_text(path, filled(path.read_text(encoding="utf-8"), knobs))


def all_knobs() -> list[KnobRow]:
    """Every knob of the configuration, and those of every propagation rule as the group `cams.<rule>`."""
    rules = (row for name in rule_names() for row in knob_rows(load_rule(name).knobs, f"cams.{name}"))
    return [*knob_rows(Params), *rules]


def filled(page: str, knobs: Sequence[KnobRow]) -> str:
    """A page with all its tables of knobs as they are now.

    Raises:
        UserError: the page names a group that has no knob.
    """
    return PLACE.sub(lambda found: f"{found[1]}{table(found['group'], knobs)}\n{found[3]}", page)


def table(group: str, knobs: Sequence[KnobRow]) -> str:
    """The knobs of one group as a Markdown table, without those of the groups inside it.

    Raises:
        UserError: there are none.
    """
    inside = [row for row in knobs if row.name.rpartition(".")[0] == group]
    if not inside:
        raise UserError(f"no knob is called {group}.*; correct the name, or see `make knobs`")
    cells = (
        (f"`{row.name.rpartition('.')[2]}`", *map(escaped, (row.default, row.allowed, row.meaning, row.source)))
        for row in inside
    )
    return "\n".join([*HEADER, *(f"| {' | '.join(row)} |" for row in cells)])


def escaped(text: str) -> str:
    """A text that stays in its cell, and whose <words> are no HTML."""
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    run_stage(main)
