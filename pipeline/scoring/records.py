"""One artefact's scores in two files: the numbers that people compare, and the details that say what they mean.

`metrics/<name>.json` holds the numbers, which `dvc metrics show` prints. `metrics/details/<name>.json` holds all else:
protocol, classes, coverage, the code that made them. Every value stands in one of the two. What scores several maps
at once (propagation rules, epochs) has details alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.run.files import read_json, write_json

NUMBERS = ("miou", "foreground_miou", "precision", "recall", "over_activation", "map")  # and those of `INSIDE`
INSIDE = {"oracle": ("oracle", "miou"), "tuned": ("tune", "at_tuned")}
"""Numbers whose value stands in a group of the scores: the group, and the key there."""


def details_path(folder: Path, name: str) -> Path:
    """Where the details of an artefact stand."""
    return folder / "details" / f"{name}.json"


def split(scores: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """The numbers of some scores, flat, and the details; `joined` puts them together again.

    The mIoU at a chosen threshold is the number `oracle` or `tuned`; the threshold itself, and what it was chosen with,
    stay in the details.
    """
    numbers = {key: scores[key] for key in NUMBERS if key in scores}
    details = {key: value for key, value in scores.items() if key not in NUMBERS}
    for number, (group, inner) in INSIDE.items():
        if inner in scores.get(group, {}):
            numbers[number] = scores[group][inner]
            details[group] = {key: value for key, value in scores[group].items() if key != inner}
    return numbers, details


def joined(numbers: dict[str, float], details: dict[str, Any]) -> dict[str, Any]:
    """The scores that `split` took apart."""
    scores = details | {key: value for key, value in numbers.items() if key not in INSIDE}
    for number, (group, inner) in INSIDE.items():
        if number in numbers:
            scores[group] = details[group] | {inner: numbers[number]}
    return scores


def write_scores(folder: Path, name: str, scores: dict[str, Any]) -> None:
    """Write the two files of an artefact.

    Where nothing could be scored (no masks, no classifier) the numbers are `{}`: DVC stops a stage that leaves out a
    declared file, and `dvc metrics show` prints dashes for it.
    """
    numbers, details = split(scores)
    write_json(folder / f"{name}.json", numbers)
    write_json(details_path(folder, name), details)


def read_scores(folder: Path, name: str, producer: str) -> dict[str, Any]:
    """Read what `write_scores` of the stage `producer` wrote.

    Raises:
        UserError: one of the files is missing or damaged.
    """
    numbers = read_json(folder / f"{name}.json", producer)
    return joined(numbers, read_json(details_path(folder, name), producer))
