"""A table of several runs: one row for each setting, mean and spread over its seeds.

`python -m pipeline.compare metrics/studies/scenes` prints Markdown from the metrics of every run below a folder (one
folder of metrics JSON for each run, as `make study` keeps them). With `--readme` it rewrites the README's table between
`<!-- study: scenes -->` and `<!-- end -->`, so that no number there is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import write_text
from pipeline.stage import run_stage

COLUMNS = {
    "tag mAP": ("classifier", "map"),
    "seeds mIoU": ("seeds", "miou"),
    "seeds, oracle": ("seeds", "oracle", "miou"),
    "at threshold": ("seeds", "oracle", "threshold"),
    "refined mIoU": ("refined", "miou"),
    "masks mIoU": ("masks", "miou"),
    "masks precision": ("masks", "precision"),
    "masks recall": ("masks", "recall"),
    "val mIoU": ("segmenter", "miou"),
}
AS_NUMBER = ("at threshold",)  # the others are percentages


def main() -> None:
    """Print the table of a study, or put it into the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder with one folder of metrics JSON for each run")
    parser.add_argument("--readme", type=Path, help="file whose table of this study is rewritten")
    arguments = parser.parse_args()
    table = study_table(arguments.study)
    if arguments.readme is None:
        print(table)
    else:
        write_text(arguments.readme, with_table(arguments.readme.read_text("utf-8"), arguments.study.name, table))


def study_table(study: Path) -> str:
    """The Markdown table of a study.

    Raises:
        UserError: there are no runs in the folder.
    """
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for run in sorted(path for path in study.iterdir() if path.is_dir()):
        metrics = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(run.glob("*.json"))}
        if metrics:
            groups.setdefault(setting(metrics), []).append(metrics)
    if not groups:
        raise UserError(f"{study} holds no runs; a run is a folder of metrics JSON")
    header = ["method", "background rule", "seeds", *COLUMNS]
    lines = [header, ["---"] * 2 + ["---:"] * (len(header) - 2)]
    for (method, rule), runs in sorted(groups.items()):
        cells = [cell(name, [value(run, keys) for run in runs]) for name, keys in COLUMNS.items()]
        lines.append([method, rule, str(len(runs)), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def setting(metrics: dict[str, Any]) -> tuple[str, str]:
    """What a run's row is named by: method and background rule."""
    protocol = metrics["masks"]["protocol"]
    return protocol["method"], str(protocol["bg_thresh"])


def value(metrics: dict[str, Any], keys: Iterable[str]) -> float | None:
    """A number of a run, or nothing where it has none."""
    found: Any = metrics
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            return None
        found = found[key]
    return float(found)


def cell(name: str, values: list[float | None]) -> str:
    """Mean, and the sample standard deviation where several seeds have the number; how many, where not all have it."""
    known = [v for v in values if v is not None]
    if not known:
        return "-"
    factor, digits = (1, 2) if name in AS_NUMBER else (100, 1)
    mean = f"{factor * statistics.mean(known):.{digits}f}"
    spread = "" if len(known) == 1 else f" ± {factor * statistics.stdev(known):.{digits}f}"
    return mean + spread + (f" (of {len(known)})" if len(known) < len(values) else "")


def with_table(text: str, name: str, table: str) -> str:
    """A text with the table of one study replaced.

    Raises:
        UserError: the text has no place for it.
    """
    pattern = re.compile(rf"(<!-- study: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(text):
        raise UserError(f"no `<!-- study: {name} -->` ... `<!-- end -->` to put the table between")
    return pattern.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text)


if __name__ == "__main__":
    run_stage(main)
