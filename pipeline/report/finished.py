"""What the earlier stages have left behind, read for the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.report import ReportKnobs
from pipeline.data.ground_truth import GroundTruth
from pipeline.data.manifest import PREPARED, Manifest, load_manifest
from pipeline.run.files import read_json
from pipeline.run.told import Told, told
from pipeline.scoring.artefacts import ARTEFACTS
from pipeline.scoring.records import details_path, read_scores

METRICS = Path("metrics")


class ReportConfig(ReportKnobs, Told):
    """What report is told: its own knobs, and all others for display."""

    params: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What the earlier stages have left behind."""

    config: ReportConfig
    manifest: Manifest
    truth: GroundTruth
    notes: list[str]
    scores: dict[str, dict[str, Any]]
    rules: dict[str, dict[str, Any]]
    epochs: dict[str, dict[str, list[float]]]
    classifier: dict[str, Any]


def load_run(root: Path) -> Run:
    """Everything but the pictures.

    Raises:
        UserError: an earlier stage has not run, or its output is damaged.
    """
    manifest = load_manifest()
    return Run(
        config=told("report", ReportConfig),
        manifest=manifest,
        truth=GroundTruth(manifest, root),
        notes=read_json(PREPARED / "notes.json", "prepare_data"),
        scores={name: read_scores(METRICS, name, f"evaluate@{name}") for name in ARTEFACTS},
        rules=read_json(details_path(METRICS, "rules"), "evaluate@rules")["rules"],
        epochs=read_json(details_path(METRICS, "localizer"), "evaluate@localizer")["epochs"],
        classifier=read_scores(METRICS, "classifier", "train_classifier"),
    )
