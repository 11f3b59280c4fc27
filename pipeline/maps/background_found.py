"""The background thresholds that choose_background found, as the stages after it read them."""

from __future__ import annotations

from pathlib import Path

from pipeline.maps.background import Threshold
from pipeline.maps.background_rules import SET_RULES
from pipeline.run.errors import UserError
from pipeline.run.files import read_json, write_json
from pipeline.scoring.artefacts import VALIDATION

DATA, FOLDER = Path("data"), Path("data/background")
MAPS = ("seeds", "rules", "refined")
"""Folders below `data` that are stores of maps or hold some; each has a file of thresholds."""


def stores_below(folder: Path) -> list[Path]:
    """A folder where it is a store, and the stores in it."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    return [folder, *inside] if any(folder.glob("shard-*")) else inside


def save_thresholds(folder: Path, maps: str, rule: Threshold, thresholds: dict[Path, Threshold]) -> None:
    """Write the threshold of each store of `data/<maps>`, by the store's path below `data`."""
    found = {str(store.relative_to(DATA)): threshold for store, threshold in thresholds.items()}
    write_json(folder / f"{maps}.json", {"bg_thresh": rule, "thresholds": found})


def threshold_of(rule: Threshold, store: Path) -> Threshold:
    """What a background rule means for a store of maps: rules of a data set are looked up, all else is what it is.

    Maps of validation photographs take the threshold that was found on those of the training photographs.

    Raises:
        UserError: `choose_background` has not run, or ran with another rule.
    """
    if rule not in SET_RULES:
        return rule
    name = store.relative_to(VALIDATION if store.is_relative_to(VALIDATION) else DATA)
    path = FOLDER / f"{name.parts[0]}.json"
    found = read_json(path, "choose_background")
    if found["bg_thresh"] != rule or str(name) not in found["thresholds"]:
        raise UserError(f"{path} holds no threshold of {name} by bg_thresh = {rule}; run `dvc repro choose_background`")
    threshold: float = found["thresholds"][str(name)]
    return threshold
