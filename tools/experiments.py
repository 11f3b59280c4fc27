"""All experiments and what differs between them, a row each, for a terminal of 160 columns.

`python -m tools.experiments` (or `make experiments`) asks `dvc exp show --only-changed` for mIoU and oracle of each
artefact, tag mAP, and knobs. `dvc exp show` itself has every number, in wide columns named by files.
"""

from __future__ import annotations

import csv
import io
import re
import subprocess

from pipeline.run.errors import UserError
from pipeline.run.stage import run_stage

DROPPED = r"(data|metrics)/[^:]*$|.*:(foreground_miou|over_activation|precision|recall)$"
COMMAND = ("dvc", "exp", "show", "--csv", "--only-changed", "--precision", "3", "--drop", DROPPED)
UNSHOWN = ("rev", "typ", "Created", "parent", "State", "Executor")


def main() -> None:
    """Print the table.

    Raises:
        UserError: DVC cannot list experiments.
    """
    done = subprocess.run(COMMAND, check=False, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"dvc exp show failed:\n{done.stderr.strip()}")
    print(table(done.stdout))


def table(text: str) -> str:
    """What DVC prints as CSV, in columns with short names."""
    rows = list(csv.DictReader(io.StringIO(text)))
    names = [name for name in (rows[0] if rows else {}) if name not in UNSHOWN]
    lines = [[short(name) for name in names]]
    for row in rows:
        lines.append(
            [(row["Experiment"] or row["rev"]) if name == "Experiment" else row[name] or "-" for name in names]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def short(name: str) -> str:
    """A column's short name: `seeds` is the mIoU in `metrics/seeds.json`, `seeds oracle` another number there."""
    return re.sub(r"^metrics/(\w+)\.json:", r"\1 ", name).removesuffix(" miou")


if __name__ == "__main__":
    run_stage(main)
