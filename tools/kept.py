"""The runs that a study has kept: scores by artefact, and what names a run.

A run is a folder as `tools.study` keeps it: `<artefact>.json`, `details/<artefact>.json`, `counts/<artefact>.npz`,
`seconds.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.run.errors import UserError
from pipeline.scoring.artefacts import ARTEFACTS
from pipeline.scoring.records import joined

Run = dict[str, Any]
CEILING_METHOD = "supervised"
KEPT_COUNTS = "counts"
"""The folder of a run that holds the counts of its photographs."""
SECONDS = "seconds.json"
"""The file of a run that says which stages ran for how long, and on how many cores."""


def study_runs(study: Path) -> list[Run]:
    """The scores of every run of a study, by artefact.

    Raises:
        UserError: there are no runs in the folder, or one lacks the numbers of an artefact.
    """
    runs = [read_run(folder) for folder in sorted(study.iterdir()) if folder.is_dir()]
    if not (runs := [run for run in runs if run]):
        raise UserError(f"{study} holds no runs; a run is a folder of metrics JSON with their details beside them")
    return runs


def read_run(folder: Path) -> Run:
    """The scores of one run, by artefact, and its `seconds`; rules and localizer have details alone."""
    run: Run = {}
    for path in sorted((folder / "details").glob("*.json")):
        numbers, details = folder / path.name, json.loads(path.read_text("utf-8"))
        if not numbers.exists() and path.stem in ("classifier", *ARTEFACTS):
            raise UserError(f"{numbers} is missing; delete {folder} and let the study run again")
        run[path.stem] = joined(json.loads(numbers.read_text("utf-8")) if numbers.exists() else {}, details)
    if run and (seconds := folder / SECONDS).exists():
        run["seconds"] = json.loads(seconds.read_text("utf-8"))
    return run


def setting(run: Run) -> tuple[str, str]:
    """What a run's row is named by: method and background threshold.

    A method that was given other masks to learn than its own says so in its name.
    """
    protocol = protocol_of(run)
    method, learned = str(protocol["method"]), learned_from_masks(run)
    if "masks" in run and learned != (method == CEILING_METHOD):
        method += ", true masks" if learned else ", pseudo masks"
    masks = run.get("masks", {}).get("protocol", protocol)
    if "imported" in masks:
        method += f" {masks['imported']}"
    if "segments" in masks:
        method += " + segments"
    if "supervision" in protocol:
        method += f" ({str(protocol['supervision']).partition(',')[0]})"
    return method, str(protocol["bg_thresh"])


def learned_from_masks(run: Run) -> bool:
    """Whether the segmentation network of a run learned from ground-truth masks."""
    return "full supervision" in run.get("masks", {}).get("protocol", {}).get("pixel_labels", "")


def seed_of(run: Run) -> int:
    """A run's seed."""
    return int(protocol_of(run)["seed"])


def protocol_of(run: Run) -> dict[str, Any]:
    """What a run states of itself with its seeds or, where it stopped before them, its localizer."""
    protocol: dict[str, Any] = run["seeds" if "seeds" in run else "localizer"]["protocol"]
    return protocol


def drawing_of(run: Run) -> str:
    """The seed of the drawn scenes of a run; `none` for photographs."""
    return str(protocol_of(run).get("drawing", "none"))


def place_of(run: Run) -> tuple[str, int]:
    """Drawing and seed of a run: of one setting, no two runs have the same."""
    return drawing_of(run), seed_of(run)
