"""Print the bars of the measuring instrument: whether bundled scenes and compact profile can tell methods apart.

`python -m tools.instrument` (or `make instrument`) draws scenes for the first bar, trains nothing, and reads the others
from the runs that `tools.study` kept in `metrics/studies/scenes`; a bar without its runs names the command that makes
them. `--drawings 7 --methods cam supervised` takes the bars on another drawing: it first runs those methods there,
where they are missing, and keeps them in `.instrument/drawings`, apart from what is reported. A bar holds where each of
its numbers does, of every drawing and run. `--page docs/results.md` rewrites the table there, between
`<!-- instrument -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.run.files import write_text
from pipeline.run.stage import run_stage
from tools.compare import code_note, with_table
from tools.instrument.bar import table
from tools.instrument.grid import DRAWINGS, SCENES, grid_bars
from tools.instrument.runs import kept_runs, run_bars
from tools.study import STUDIES, run_missing

REPORTED, OWN = STUDIES / "scenes", Path(".instrument/drawings")
PLACE = "instrument"
SEEDS = (0,)


def main() -> None:
    """Run what is asked for and missing, then print all bars or put them into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, help="folder of kept runs; without --drawings metrics/studies/scenes")
    parser.add_argument("--drawings", nargs="+", type=int, default=[], help="look at these drawings alone")
    parser.add_argument("--scenes", type=int, default=SCENES, help="of each drawing, for the first bar (%(default)s)")
    parser.add_argument("--methods", nargs="+", default=[], help="run these first, where they are missing")
    parser.add_argument("--page", type=Path, help="file whose table of the bars is rewritten")
    parser.add_argument("--strict", action="store_true", help="end with status 1 unless every bar holds")
    arguments = parser.parse_args()
    drawings: list[int] = arguments.drawings
    study: Path = arguments.study or (OWN if drawings else REPORTED)
    run_missing(study, arguments.methods, SEEDS, drawings or [None])
    bars = [*grid_bars(drawings or DRAWINGS, arguments.scenes), *run_bars(study, drawings)]
    runs = kept_runs(study, drawings)
    note = f"\n\n{text}" if runs and (text := code_note(runs, mixed=True)) else ""
    lines = table(bars, command(study, drawings)) + note
    if arguments.page is None:
        print(lines)
    else:
        write_text(arguments.page, with_table(arguments.page.read_text("utf-8"), PLACE, lines))
    if arguments.strict and any(bar.holds() in ("no", "open") for bar in bars):
        sys.exit(1)


def command(study: Path, drawings: Sequence[int]) -> str:
    """The command that makes runs for a study, up to the methods."""
    drawn = f" --drawings {' '.join(map(str, drawings))}" if drawings else ""
    if study.parent == STUDIES:
        return f"python -m tools.study {study.name} --seeds 0{drawn} --methods"
    return f"python -m tools.instrument{'' if study == OWN else f' --study {study}'}{drawn} --methods"


if __name__ == "__main__":
    run_stage(main)
