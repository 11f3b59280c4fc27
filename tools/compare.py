"""A table of several runs: one row for each setting, mean and spread over its seeds.

`python -m tools.compare metrics/studies/scenes` prints Markdown from the metrics of every run below a folder (one
folder of metrics JSON for each run, as `tools.study` keeps them); runs that scored several propagation rules, the
maps of earlier stages, or the localizer after every epoch, give tables of that. With `--readme` it rewrites the
README's tables between `<!-- study: scenes -->` (or `rules: scenes`, `stages: scenes`, `epochs: scenes`) and
`<!-- end -->`, so that no number there is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.run.errors import UserError
from pipeline.run.files import write_text
from pipeline.run.stage import run_stage

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
RULE_COLUMNS = {
    "mIoU": ("miou",),
    "FPR": ("fpr",),
    "FNR": ("fnr",),
    "mIoU at none": ("no_threshold", "miou"),
    "FPR at none": ("no_threshold", "fpr"),
    "FNR at none": ("no_threshold", "fnr"),
    "oracle mIoU": ("oracle", "miou"),
    "at threshold": ("oracle", "threshold"),
}
STAGE_COLUMNS = {
    "mIoU": ("miou",),
    "precision": ("precision",),
    "recall": ("recall",),
    "oracle mIoU": ("oracle", "miou"),
    "at threshold": ("oracle", "threshold"),
}
EPOCH_COLUMNS = ("first epoch", "best epoch", "last epoch", "last - best", "number of the best")
AS_NUMBER = ("at threshold", "number of the best")  # the others are percentages


Row = dict[str, float | None]


def main() -> None:
    """Print the table of a study, or put it into the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder with one folder of metrics JSON for each run")
    parser.add_argument("--readme", type=Path, help="file whose table of this study is rewritten")
    arguments = parser.parse_args()
    for place, lines in tables(arguments.study).items():
        if arguments.readme is None:
            print(lines, end="\n\n")
        else:
            write_text(arguments.readme, with_table(arguments.readme.read_text("utf-8"), place, lines))


def tables(study: Path) -> dict[str, str]:
    """The Markdown tables of a study, by the place that they have in the README.

    Raises:
        UserError: there are no runs in the folder.
    """
    runs = study_runs(study)
    found: dict[str, str] = {}
    if any("seeds" in run for run in runs):
        found[f"study: {study.name}"] = study_table(runs)
    if any(rules_of(run) for run in runs):
        found[f"rules: {study.name}"] = rules_table(runs)
    if any(stages_of(run) for run in runs):
        found[f"stages: {study.name}"] = stages_table(runs)
    if any(run.get("localizer", {}).get("epochs") for run in runs):
        found[f"epochs: {study.name}"] = epochs_table(runs)
    return found


def study_runs(study: Path) -> list[dict[str, Any]]:
    """The metrics of every run of a study, by the name of their file.

    Raises:
        UserError: there are no runs in the folder.
    """
    folders = sorted(path for path in study.iterdir() if path.is_dir())
    runs = [{path.stem: json.loads(path.read_text("utf-8")) for path in sorted(f.glob("*.json"))} for f in folders]
    if not (runs := [run for run in runs if run]):
        raise UserError(f"{study} holds no runs; a run is a folder of metrics JSON")
    return runs


def study_table(runs: Sequence[dict[str, Any]]) -> str:
    """One row for each method and background rule: the numbers of every stage."""
    whole = [run for run in runs if "seeds" in run]
    rows = [(setting(run), seed_of(run), numbers(run, COLUMNS)) for run in whole]
    return table(("method", "background rule"), COLUMNS, rows)


def rules_table(runs: Sequence[dict[str, Any]]) -> str:
    """One row for each propagation rule and background rule: the seeds that it gives."""
    rows = [
        ((setting(run)[0], rule, setting(run)[1]), seed_of(run), numbers(scores, RULE_COLUMNS))
        for run in runs
        for rule, scores in rules_of(run).items()
    ]
    return table(("method", "propagation rule", "background rule"), RULE_COLUMNS, rows)


def stages_table(runs: Sequence[dict[str, Any]]) -> str:
    """One row for each method and stage of its network: the maps of earlier stages beside those that went on."""
    rows = [
        ((setting(run)[0], stage, setting(run)[1]), seed_of(run), numbers(scores, STAGE_COLUMNS))
        for run in runs
        for stage, scores in stages_of(run).items()
    ]
    return table(("method", "stage", "background rule"), STAGE_COLUMNS, rows)


def rules_of(run: dict[str, Any]) -> dict[str, Any]:
    """Scores of a run's propagation rules by name; none where its rules are maps of stages."""
    return {} if stages_of(run) else run.get("rules", {}).get("rules", {})


def stages_of(run: dict[str, Any]) -> dict[str, Any]:
    """Scores of the maps that went on and of those of earlier stages, by name; none where there are no earlier ones."""
    seeds = run.get("seeds", {})
    if not (earlier := seeds.get("earlier")):
        return {}
    return {f"{seeds['protocol']['rule']} (goes on)": seeds} | earlier


def epochs_table(runs: Sequence[dict[str, Any]]) -> str:
    """One row for each method, network and length: mIoU of its maps after the first, the best and the last epoch."""
    rows: list[tuple[tuple[str, ...], int, Row]] = []
    for run in runs:
        for network, scores in run.get("localizer", {}).get("epochs", {}).items():
            curve = scores["miou"]
            best = curve.index(max(curve))
            cells = (curve[0], curve[best], curve[-1], curve[-1] - curve[best], float(best + 1))
            name = (setting(run)[0], network, str(len(curve)))
            rows.append((name, seed_of(run), dict(zip(EPOCH_COLUMNS, cells, strict=True))))
    return table(("method", "network", "epochs"), EPOCH_COLUMNS, rows)


def table(names: tuple[str, ...], columns: Iterable[str], rows: Sequence[tuple[tuple[str, ...], int, Row]]) -> str:
    """Rows of the same name become one line: mean and spread over seeds.

    Raises:
        UserError: two rows have the same name and seed: they differ in knobs that the table does not show.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    seen: set[tuple[tuple[str, ...], int]] = set()
    for name, seed, row in rows:
        if (name, seed) in seen:
            raise UserError(
                f"two runs of {', '.join(name)} have seed {seed}; keep runs of other knobs in another study"
            )
        seen.add((name, seed))
        groups.setdefault(name, []).append(row)
    header = [*names, "seeds", *columns]
    lines = [header, ["---"] * len(names) + ["---:"] * (len(header) - len(names))]
    for name, group in sorted(groups.items()):
        cells = [cell(column, [row[column] for row in group]) for column in columns]
        lines.append([*name, str(len(group)), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def setting(metrics: dict[str, Any]) -> tuple[str, str]:
    """What a run's row is named by: method and background rule."""
    protocol = protocol_of(metrics)
    return protocol["method"], str(protocol["bg_thresh"])


def seed_of(metrics: dict[str, Any]) -> int:
    """A run's seed."""
    return int(protocol_of(metrics)["seed"])


def protocol_of(metrics: dict[str, Any]) -> dict[str, Any]:
    """What a run states of itself with its seeds or, where it stopped before them, its localizer."""
    protocol: dict[str, Any] = metrics["seeds" if "seeds" in metrics else "localizer"]["protocol"]
    return protocol


def numbers(metrics: dict[str, Any], columns: dict[str, tuple[str, ...]]) -> Row:
    """The numbers of a row, by column."""
    return {name: value(metrics, keys) for name, keys in columns.items()}


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


def with_table(text: str, place: str, lines: str) -> str:
    """A text with the table at one place replaced.

    Raises:
        UserError: the text has no place for it.
    """
    pattern = re.compile(rf"(<!-- {re.escape(place)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(text):
        raise UserError(f"no `<!-- {place} -->` ... `<!-- end -->` to put the table between")
    return pattern.sub(lambda found: f"{found[1]}{lines}\n{found[2]}", text)


if __name__ == "__main__":
    run_stage(main)
