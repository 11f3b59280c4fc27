"""A table of several runs: one row for each setting, mean and spread over its trainings and drawings.

`python -m tools.compare metrics/studies/scenes` prints Markdown from the scores of every run below a folder (a
folder for each run, see `tools.kept`). Runs that scored several propagation rules, earlier maps, or the localizer after
every epoch give tables of that, and so do one-stage trainings, of their tokens, and stages, of their minutes. Runs that
kept the counts of their photographs are paired (see `tools.pairs`). With `--page docs/results.md` it rewrites the
tables of that page between `<!-- study: scenes -->` (or `rules: scenes`, `earlier: scenes`, `epochs: scenes`,
`tokens: scenes`, `minutes: scenes`, `pairs: scenes`) and `<!-- end -->`, so that no number there is typed by hand.

Runs of different code stand in no common table: what they differ in is said, and they are refused. `--mixed` lets them
stand together, with a note below the table.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.run.errors import UserError
from pipeline.run.files import write_text
from pipeline.run.stage import run_stage
from tools.kept import Run, drawing_of, learned_from_masks, place_of, setting, study_runs
from tools.minutes import CORES, PARTS, TO_MASKS, minutes
from tools.pairs import pairs_table

COLUMNS = {
    "tag mAP": ("classifier", "map"),
    "seeds mIoU": ("seeds", "miou"),
    "seeds, tuned": ("seeds", "tune", "at_tuned"),
    "seeds, oracle": ("seeds", "oracle", "miou"),
    "at threshold": ("seeds", "oracle", "threshold"),
    "refined mIoU": ("refined", "miou"),
    "masks mIoU": ("masks", "miou"),
    "masks precision": ("masks", "precision"),
    "masks recall": ("masks", "recall"),
    "val mIoU": ("segmenter", "miou"),
}
CEILING = "of the ceiling"
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
EARLIER_COLUMNS = {
    "mIoU": ("miou",),
    "precision": ("precision",),
    "recall": ("recall",),
    "oracle mIoU": ("oracle", "miou"),
    "at threshold": ("oracle", "threshold"),
}
TOKEN_COLUMNS = {
    "token similarity": ("localizer", "training", "similarity"),
    "seeds mIoU": ("seeds", "miou"),
    "seeds, oracle": ("seeds", "oracle", "miou"),
    "over-activation": ("seeds", "over_activation"),
    "recall": ("seeds", "recall"),
    "earlier block, oracle": ("seeds", "earlier", "aux", "oracle", "miou"),
    "masks mIoU": ("masks", "miou"),
    "val mIoU": ("segmenter", "miou"),
}
EPOCH_COLUMNS = ("first epoch", "best epoch", "last epoch", "last - best", "number of the best")
MINUTES = (*PARTS, TO_MASKS)
PLAIN = {
    **dict.fromkeys(("at threshold", "number of the best", "token similarity"), (1, 2)),
    **dict.fromkeys(MINUTES, (1, 1)),
    CORES: (1, 0),
}
"""Columns that are no percentages: their factor, and how many digits they show."""
SHARED = ("prepare_data", "choose_background", "evaluate")
"""Stages that run the same code for every method."""
OWN_TO_A_RUN = ("seed", "drawing", "bg_thresh_used")
"""What the protocols of runs of one row may differ in."""

Place = tuple[str, int]
Row = dict[str, float | None]


def main() -> None:
    """Print the tables of a study, or put them into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder with one folder of scores for each run")
    parser.add_argument("--page", type=Path, help="file whose tables of this study are rewritten")
    parser.add_argument("--mixed", action="store_true", help="let runs of different code stand in one table, marked")
    parser.add_argument(
        "--baseline", help="method that every other is paired with (the one that its preset names, and cam)"
    )
    arguments = parser.parse_args()
    for place, lines in tables(arguments.study, arguments.mixed, arguments.baseline).items():
        if arguments.page is None:
            print(lines, end="\n\n")
        else:
            write_text(arguments.page, with_table(arguments.page.read_text("utf-8"), place, lines))


def tables(study: Path, mixed: bool = False, baseline: str | None = None) -> dict[str, str]:
    """The Markdown tables of a study, by the place that they have in a page.

    Args:
        study: folder of its runs.
        mixed: whether runs of different code may stand in one table, which then says so.
        baseline: the method that all others are paired with; none: see `tools.pairs.pairs_table`.

    Raises:
        UserError: there are no runs in the folder, runs of one row have other knobs, or they are of different code and
            `mixed` is not given.
    """
    runs = study_runs(study)
    check_knobs(runs)
    kinds: dict[str, tuple[Callable[[Run], Any], Callable[[Sequence[Run]], str]]] = {
        "study": (lambda run: run.get("seeds"), study_table),
        "rules": (rules_of, rules_table),
        "earlier": (earlier_of, earlier_table),
        "epochs": (epochs_of, epochs_table),
        "minutes": (lambda run: run.get("seconds"), minutes_table),
        "tokens": (lambda run: value(run, TOKEN_COLUMNS["token similarity"]), tokens_table),
    }
    found: dict[str, str] = {}
    for kind, (scores_of, make) in kinds.items():
        if rows := [run for run in runs if scores_of(run)]:
            note = code_note(rows, mixed)
            found[f"{kind}: {study.name}"] = make(rows) + (f"\n\n{note}" if note else "")
    if pairs := pairs_table(study, baseline):
        note = code_note(runs, mixed)
        found[f"pairs: {study.name}"] = pairs + (f"\n\n{note}" if note else "")
    return found


# -------------------------------------------------------------------------------------------------- code of the runs


def code_note(runs: Sequence[Run], mixed: bool) -> str:
    """What a table says of the code of its runs: nothing where all were made by the same code.

    Raises:
        UserError: it differs, and `mixed` is not given.
    """
    if not any(code_of(run) for run in runs):
        return "Code not recorded."
    if not (different := code_differences(runs)):
        return ""
    if not mixed:
        raise UserError(
            f"these runs are of different code ({'; '.join(different)}); delete the older ones and let the study run "
            "again, or give --mixed to let them stand in one table that says so"
        )
    return f"Runs of different code: {'; '.join(different)}."


def code_of(run: Run) -> set[tuple[str, str]]:
    """Stages that made a run and the digests of their code; empty where they are not recorded."""
    made = {item for scores in run.values() for item in scores.get("code", {}).items()}
    return {(stage, digest) for stage, digest in made if digest}


def code_differences(runs: Sequence[Run]) -> list[str]:
    """What the code of some runs differs in, and in how many versions; empty where it is the same.

    Runs are compared by the stages that run the same modules for both, see `code_group`.
    """
    found: list[str] = []
    if unrecorded := sum(not code_of(run) for run in runs):
        found.append(f"code not recorded for {unrecorded} of {len(runs)} runs")
    versions: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        for stage, digest in code_of(run):
            versions.setdefault((code_group(run, stage), stage), set()).add(digest)
    differing = {key: len(digests) for key, digests in sorted(versions.items()) if len(digests) > 1}
    return found + [f"{group}: {count} versions of {stage}" for (group, stage), count in differing.items()]


def code_group(run: Run, stage: str) -> str:
    """Which runs a stage runs the same modules for, in words."""
    method = setting(run)[0]
    if stage.startswith(SHARED):
        return "all methods"
    if stage == "make_masks":
        return "true masks" if learned_from_masks(run) else "pseudo masks"
    network = run.get("segmenter", {}).get("protocol", {}).get("network", "localizer")
    return f"segmenter {network}" if stage in ("train_segmenter", "predict") and network != "localizer" else method


def check_knobs(runs: Sequence[Run]) -> None:
    """Refuse runs of one row whose protocols differ in more than seed and drawing: they are no repetitions.

    Raises:
        UserError: naming the row and what differs.
    """
    first: dict[tuple[str, tuple[str, str]], dict[str, Any]] = {}
    for run in runs:
        for artefact, scores in run.items():
            stated = {key: fact for key, fact in scores.get("protocol", {}).items() if key not in OWN_TO_A_RUN}
            other = first.setdefault((artefact, setting(run)), stated)
            if different := sorted(key for key in {*stated, *other} if stated.get(key) != other.get(key)):
                raise UserError(
                    f"runs of {', '.join(setting(run))} differ in {', '.join(different)} of {artefact}, so they are no "
                    "repetitions; keep runs of other knobs in another study"
                )


# ------------------------------------------------------------------------------------------------------------ tables


def study_table(runs: Sequence[Run]) -> str:
    """One row for each method and background threshold: the numbers of every stage, and the share of the ceiling."""
    rows = [(setting(run), place_of(run), numbers(run, COLUMNS) | {CEILING: of_ceiling(run, runs)}) for run in runs]
    return table(("method", "background threshold"), [*COLUMNS, CEILING], rows)


def of_ceiling(run: Run, runs: Sequence[Run]) -> float | None:
    """A run's mIoU on the validation photographs over that of full supervision on the same drawing, where both are."""
    full = [value(other, COLUMNS["val mIoU"]) for other in runs if is_ceiling(other, drawing_of(run))]
    known, own = [v for v in full if v], value(run, COLUMNS["val mIoU"])
    return own / statistics.mean(known) if known and own is not None else None


def is_ceiling(run: Run, drawing: str) -> bool:
    """Whether a run learned from true masks, on some drawing."""
    return learned_from_masks(run) and drawing_of(run) == drawing


def tokens_table(runs: Sequence[Run]) -> str:
    """One row for each one-stage method: how alike its final tokens are, and what its maps cover."""
    rows = [(setting(run), place_of(run), numbers(run, TOKEN_COLUMNS)) for run in runs]
    return table(("method", "background threshold"), [*TOKEN_COLUMNS], rows)


def minutes_table(runs: Sequence[Run]) -> str:
    """One row for each method: how long its stages took."""
    rows = [(setting(run), place_of(run), minutes(run, runs)) for run in runs]
    return table(("method", "background threshold"), (CORES, *MINUTES), rows)


def rules_table(runs: Sequence[Run]) -> str:
    """One row for each propagation rule and background threshold: the seeds that it gives."""
    rows = [
        ((setting(run)[0], rule, setting(run)[1]), place_of(run), numbers(scores, RULE_COLUMNS))
        for run in runs
        for rule, scores in rules_of(run).items()
    ]
    return table(("method", "propagation rule", "background threshold"), [*RULE_COLUMNS], rows)


def earlier_table(runs: Sequence[Run]) -> str:
    """One row for each method and maps of its network: the earlier ones, and those that were used."""
    rows = [
        ((setting(run)[0], maps, setting(run)[1]), place_of(run), numbers(scores, EARLIER_COLUMNS))
        for run in runs
        for maps, scores in earlier_of(run).items()
    ]
    return table(("method", "maps", "background threshold"), [*EARLIER_COLUMNS], rows)


def rules_of(run: Run) -> dict[str, Any]:
    """Scores of a run's propagation rules by name; none where its rules are earlier maps."""
    return {} if earlier_of(run) else run.get("rules", {}).get("rules", {})


def earlier_of(run: Run) -> dict[str, Any]:
    """Scores of a run's earlier maps and of those that were used, by name; none where there are no earlier ones."""
    seeds = run.get("seeds", {})
    if not (earlier := seeds.get("earlier")):
        return {}
    return {f"{seeds['protocol']['rule']} (used)": seeds} | earlier


def epochs_of(run: Run) -> dict[str, Any]:
    """Scores of a run's localizer after every epoch, by network."""
    epochs: dict[str, Any] = run.get("localizer", {}).get("epochs", {})
    return epochs


def epochs_table(runs: Sequence[Run]) -> str:
    """One row for each method, network and length: mIoU of its maps after the first, the best and the last epoch."""
    rows: list[tuple[tuple[str, ...], Place, Row]] = []
    for run in runs:
        for network, scores in epochs_of(run).items():
            curve = scores["miou"]
            best = curve.index(max(curve))
            cells = (curve[0], curve[best], curve[-1], curve[-1] - curve[best], float(best + 1))
            name = (setting(run)[0], network, str(len(curve)))
            rows.append((name, place_of(run), dict(zip(EPOCH_COLUMNS, cells, strict=True))))
    return table(("method", "network", "epochs"), EPOCH_COLUMNS, rows)


def table(names: tuple[str, ...], columns: Sequence[str], rows: Sequence[tuple[tuple[str, ...], Place, Row]]) -> str:
    """Rows of the same name become one line: mean and spread over trainings and drawings.

    Raises:
        UserError: two rows have the same name, seed and drawing: they differ in knobs that the table does not show.
    """
    groups: dict[tuple[str, ...], dict[Place, Row]] = {}
    for name, place, row in rows:
        if place in groups.setdefault(name, {}):
            raise UserError(
                f"two runs of {', '.join(name)} have seed {place[1]} (drawing {place[0]}); keep runs of other knobs in "
                "another study"
            )
        groups[name][place] = row
    header = [*names, "trainings x drawings", *columns]
    lines = [header, ["---"] * len(names) + ["---:"] * (len(header) - len(names))]
    for name, group in sorted(groups.items()):
        cells = [cell(column, [row[column] for row in group.values()]) for column in columns]
        lines.append([*name, counted(list(group)), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def counted(places: Sequence[Place]) -> str:
    """How many trainings and drawings runs are of, and how many runs where some are missing: `3 x 2`, `5 of 3 x 2`."""
    drawings, seeds = ({place[part] for place in places} for part in (0, 1))
    grid = f"{len(seeds)} x {len(drawings)}"
    return grid if len(places) == len(seeds) * len(drawings) else f"{len(places)} of {grid}"


def numbers(scores: dict[str, Any], columns: dict[str, tuple[str, ...]]) -> Row:
    """The numbers of a row, by column."""
    return {name: value(scores, keys) for name, keys in columns.items()}


def value(scores: dict[str, Any], keys: Iterable[str]) -> float | None:
    """A number among some scores, or nothing where it is not there."""
    found: Any = scores
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            return None
        found = found[key]
    return float(found)


def cell(name: str, values: list[float | None]) -> str:
    """Mean, and the sample standard deviation where several runs have the number; how many, where not all have it."""
    known = [v for v in values if v is not None]
    if not known:
        return "-"
    factor, digits = PLAIN.get(name, (100, 1))
    missing = f" (of {len(known)})" if len(known) < len(values) else ""
    return spread([factor * v for v in known], digits) + missing


def spread(values: Sequence[float], digits: int) -> str:
    """Mean, and the sample standard deviation where there are several values."""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


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
