"""The report's page: numbers, tables and charts, put into the template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from models.labels import IGNORE
from pipeline.report.finished import Run
from pipeline.report.gallery import Gallery, Row
from pipeline.report.pictures import (
    COLOURS,
    Curve,
    calibration_figure,
    curve_figure,
    figure_uri,
    heat_scale,
    png_uri,
    training_figure,
)
from pipeline.run.errors import UserError
from pipeline.scoring.artefacts import ARTEFACTS
from pipeline.scoring.check_first import FILE
from pipeline.scoring.sizes import LARGE, MEDIUM

PLOTS = Path("metrics/plots")
TRAININGS = {"classifier": "classifier", "localizer_training": "localizer", "segmenter_training": "segmenter"}
SCORES = {
    "miou": "mIoU",
    "foreground_miou": "foreground mIoU",
    "precision": "precision",
    "recall": "recall",
    "over_activation": "over-activation",
    "fpr": "FPR",
    "fnr": "FNR",
}
SIZES = {"small": f"below {MEDIUM:.0%}", "medium": f"{MEDIUM:.0%} to {LARGE:.0%}", "large": f"above {LARGE:.0%}"}
COVERAGE = {"foreground": "foreground pixels", "ignored": "ignored pixels", "tags_shown": "tags shown"}


def page(run: Run, miou_chart: str) -> str:
    """The page as HTML; the template escapes every text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["score"] = score_text
    environment.filters["knob"] = knob_text
    gallery = Gallery(run)
    groups = {split: gallery.rows(split) for split in ("train", "val")}
    return environment.get_template("report.html.j2").render(
        params=run.config.params,
        background=run.truth.background,
        imported=run.scores["segmenter"]["protocol"].get("imported"),
        supervised=run.config.params["masks"]["source"] == "truth",
        splits={split: split_facts(run, split) for split in ("train", "val")},
        classes=run.manifest.classes,
        notes=run.notes,
        warnings=[text for scores in (run.classifier, *run.scores.values()) for text in scores.get("warnings", [])],
        artefacts={name: run.scores[name] | {"split": split_of(run, name)} for name in ARTEFACTS},
        rules=run.rules,
        epochs=run.epochs,
        scores=SCORES,
        coverage=COVERAGE,
        sizes=SIZES,
        tuned=any("at_tuned" in scores.get("tune", {}) for scores in run.scores.values()),
        protocol=protocol_table(run),
        classifier=run.classifier,
        miou_chart=miou_chart,
        found_thresholds=found_thresholds(run),
        per_class=per_class(run),
        colours=COLOURS,
        groups=groups,
        check_first=check_first(run, gallery),
        legend=gallery.legend(),
        ignored=IGNORE in gallery.labels,
        heat=heat_scale(),
        configuration=yaml.safe_dump(_words(run.config.params), allow_unicode=True, width=100),
        **charts(run),
    )


def check_first(run: Run, gallery: Gallery) -> list[Row]:
    """The photographs of the most doubtful masks, of as many as half a gallery; none where masks are true ones."""
    path = PLOTS / "masks" / FILE
    if not path.exists():
        return []
    records = {record.id: record for record in run.manifest.records}
    names = _read_csv(path, "evaluate@masks")["id"][: run.config.gallery // 2]
    return [gallery.row(records[name]) for name in names if name in records]


def charts(run: Run) -> dict[str, Any]:
    """Charts of thresholds and trainings, and a picture of samplers; None for what a run does not have."""
    return {
        "merit_chart": picture(PLOTS / "background" / "merit.png"),
        "curve_chart": curve_chart(run),
        "calibration_chart": calibration_chart(run),
        "trainings": {name: training_chart(folder) for folder, name in TRAININGS.items()},
        "sampling": picture(PLOTS / "localizer_training" / "sampling.png"),
    }


def score_text(value: float | None) -> str:
    """A score with three decimals; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


def knob_text(value: Any) -> str:
    """A value as params.yaml writes it; a dash where there is none."""
    if isinstance(value, list):
        return ", ".join(map(knob_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6).strip()
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _words(knobs: Any) -> Any:
    """The knobs with `none` where Python has None, as params.yaml writes it."""
    if isinstance(knobs, dict):
        return {name: _words(value) for name, value in knobs.items()}
    return "none" if knobs is None else knobs


def split_of(run: Run, artefact: str) -> str:
    """The split that an artefact is scored on."""
    return str(run.scores[artefact]["protocol"]["split"])


def split_facts(run: Run, split: str) -> dict[str, int]:
    """How many photographs a split has, and how many of them have a mask."""
    part = run.manifest.split(split)
    return {"images": len(part.records), "masks": len(run.truth.known(part))}


def mious(scores: dict[str, Any]) -> tuple[float | None, float | None]:
    """mIoU, and mIoU at the oracle threshold."""
    return scores.get("miou"), scores.get("oracle", {}).get("miou")


def protocol_table(run: Run) -> dict[str, list[str]]:
    """What each artefact's details say about how it was scored: one row per fact."""
    protocols = [run.scores[name]["protocol"] for name in ARTEFACTS]
    facts = dict.fromkeys(fact for protocol in protocols for fact in protocol)
    return {
        fact.replace("_", " "): [knob_text(protocol[fact]) if fact in protocol else "–" for protocol in protocols]
        for fact in facts
    }


def per_class(run: Run) -> dict[str, dict[str, float]]:
    """For each class, a number from 0 to 1 for each artefact that has one.

    It is the IoU; where no artefact was scored, the share of the photographs tagged with the class whose mask shows it.
    """
    if any("per_class" in scores for scores in run.scores.values()):
        found = {name: scores.get("per_class", {}) for name, scores in run.scores.items()}
    else:
        found = {name: _second_column(PLOTS / name / "per_class.csv", f"evaluate@{name}") for name in ARTEFACTS}
    order = ["background", *run.manifest.classes]
    named = {label: {name: found[name][label] for name in ARTEFACTS if label in found[name]} for label in order}
    return {label: values for label, values in named.items() if values}


def _read_csv(path: Path, producer: str) -> pd.DataFrame:
    try:
        return pd.read_csv(path, keep_default_na=False, dtype={"class": str, "id": str})
    except (FileNotFoundError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{path} is missing or damaged ({error}); run `dvc repro --force {producer}`") from error


def _second_column(path: Path, producer: str) -> dict[str, float]:
    table = _read_csv(path, producer)
    return dict(zip(table.iloc[:, 0], table.iloc[:, 1].astype(float), strict=True))


def curve_chart(run: Run) -> str | None:
    """The threshold curves of the artefacts that have one, or None."""
    curves = []
    for name, scores in run.scores.items():
        if "oracle" in scores:
            table = _read_csv(PLOTS / name / "threshold_curve.csv", f"evaluate@{name}")
            oracle = (scores["oracle"]["threshold"], scores["oracle"]["miou"])
            points = table["threshold"].tolist(), table["miou"].tolist()
            curves.append(Curve(name, *points, scores["protocol"]["bg_thresh_used"], scores["miou"], oracle))
    return figure_uri(curve_figure(curves, run.scores["refined"].get("mask_curve"))) if curves else None


def calibration_chart(run: Run) -> str | None:
    """The reliability of the artefacts that have maps, or None."""
    tables = {name: scores["calibration"] for name, scores in run.scores.items() if "calibration" in scores}
    return figure_uri(calibration_figure(tables)) if tables else None


def found_thresholds(run: Run) -> dict[str, float]:
    """The background threshold that a rule found for an artefact's maps, where the rule finds one for a data set."""
    protocols = {name: run.scores[name]["protocol"] for name in ARTEFACTS}
    return {
        name: facts["bg_thresh_used"]
        for name, facts in protocols.items()
        if facts.get("bg_thresh_used", facts.get("bg_thresh")) != facts.get("bg_thresh")
    }


def training_chart(folder: str) -> str | None:
    """Losses of one training; None where the method has none."""
    table = _read_csv(PLOTS / folder / "history.csv", f"train_{TRAININGS[folder]}")
    return (
        None
        if table.empty
        else figure_uri(training_figure({str(n): pd.to_numeric(table[n], errors="coerce").tolist() for n in table}))
    )


def picture(path: Path) -> str | None:
    """A picture that only some methods or rules leave; None where there is none."""
    return png_uri(path) if path.exists() else None
