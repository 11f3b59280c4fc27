"""Stage report: one page with the numbers, curves and pictures of the whole run; it computes no score of its own.

Writes `metrics/report`: `index.html`, which holds all that it shows (no script, nothing from a network), and
`miou.png` with its numbers `miou.csv`. Ground-truth masks are read to be shown beside the others, for nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from tqdm import tqdm

from models.labels import IGNORE
from pipeline.config.report import ReportKnobs
from pipeline.data.dataset import Photographs
from pipeline.data.ground_truth import GroundTruth
from pipeline.data.images import resize_image, resize_labels
from pipeline.data.manifest import PREPARED, Manifest, Record, load_manifest
from pipeline.data.masks import read_mask, voc_palette
from pipeline.maps.store import fused_maps, read_entry, store_index
from pipeline.report.pictures import (
    COLOURS,
    Curve,
    Picture,
    css_colour,
    curve_figure,
    figure_uri,
    heat_overlay,
    heat_scale,
    label_overlay,
    miou_figure,
    picture_uri,
    png_uri,
    thumbnail_size,
    training_figure,
)
from pipeline.run.errors import UserError
from pipeline.run.files import new_folder, read_json, write_text
from pipeline.run.stage import run_light_stage
from pipeline.run.told import Runtime, Told, told
from pipeline.scoring.artefacts import ARTEFACTS
from pipeline.scoring.charts import save_figure, save_table
from pipeline.scoring.records import details_path, read_scores

OUTPUT, METRICS, PLOTS = Path("metrics/report"), Path("metrics"), Path("metrics/plots")
SEEDS, MASKS, PREDICTIONS = Path("data/seeds"), Path("data/masks"), Path("data/segmenter/predictions")
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
COVERAGE = {"foreground": "foreground pixels", "ignored": "ignored pixels", "tags_shown": "tags shown"}


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


@dataclass(frozen=True)
class Tile:
    """One picture of the gallery; without a picture its text stands alone."""

    text: str
    uri: str | None


@dataclass(frozen=True)
class Row:
    """One photograph of the gallery."""

    id: str
    tags: tuple[str, ...]
    tiles: tuple[Tile, ...]


def main(runtime: Runtime) -> None:
    """Write the page and the chart."""
    run = load_run(runtime.folder)
    rows = [(name, split_of(run, name), *mious(run.scores[name])) for name in ARTEFACTS]
    with new_folder(OUTPUT) as folder:
        columns = zip(("artefact", "split", "miou", "oracle_miou"), zip(*rows, strict=True), strict=True)
        save_table(folder / "miou.csv", dict(columns))
        save_figure(folder / "miou.png", miou_figure(rows))
        write_text(folder / "index.html", page(run, figure_uri(miou_figure(rows))))
    print(f"the report is {OUTPUT / 'index.html'}")


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
        splits={split: split_facts(run, split) for split in ("train", "val")},
        classes=run.manifest.classes,
        notes=run.notes,
        artefacts={name: run.scores[name] | {"split": split_of(run, name)} for name in ARTEFACTS},
        rules=run.rules,
        epochs=run.epochs,
        scores=SCORES,
        coverage=COVERAGE,
        protocol=protocol_table(run),
        classifier=run.classifier,
        miou_chart=miou_chart,
        curve_chart=curve_chart(run),
        per_class=per_class(run),
        colours=COLOURS,
        trainings={name: training_chart(folder) for folder, name in TRAININGS.items()},
        sampling=sampling_picture(),
        groups=groups,
        legend=gallery.legend(),
        ignored=IGNORE in gallery.labels,
        heat=heat_scale(),
        configuration=yaml.safe_dump(_words(run.config.params), allow_unicode=True, width=100),
    )


# ----------------------------------------------------------------------------------------------------------- numbers


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
        return pd.read_csv(path, keep_default_na=False, dtype={"class": str})
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
            curves.append(Curve(name, *points, scores["protocol"]["bg_thresh"], scores["miou"], oracle))
    return figure_uri(curve_figure(curves)) if curves else None


def training_chart(folder: str) -> str | None:
    """Losses of one training; None where the method has none."""
    table = _read_csv(PLOTS / folder / "history.csv", f"train_{TRAININGS[folder]}")
    return (
        None
        if table.empty
        else figure_uri(training_figure({str(n): pd.to_numeric(table[n], errors="coerce").tolist() for n in table}))
    )


def sampling_picture() -> str | None:
    """Where a sampler reads its features on one photograph; None where the method has no sampler."""
    path = PLOTS / "localizer_training" / "sampling.png"
    return png_uri(path) if path.exists() else None


# ----------------------------------------------------------------------------------------------------------- gallery


def chosen(manifest: Manifest, count: int) -> list[Record]:
    """Photographs that show every class where `count` allows it, spread over the manifest; the same ones every time.

    One after the other: the photograph with most classes not yet shown, and among those the one farthest from all
    that are chosen.
    """
    places, tagged = np.arange(len(manifest.records)), manifest.tag_matrix() > 0
    missing, distance = tagged.any(axis=0), np.full(len(places), len(places))
    picked: list[int] = []
    while len(picked) < min(count, len(places)):
        new = (tagged & missing).sum(axis=1)
        new[picked] = -1
        place = int(np.lexsort((-places, distance, new))[-1])
        picked.append(place)
        missing &= ~tagged[place]
        distance = np.minimum(distance, abs(places - place))
    return [manifest.records[place] for place in sorted(picked)]


class Gallery:
    """Reads and draws the photographs of the gallery; remembers which labels it has shown."""

    def __init__(self, run: Run) -> None:
        self.run, self.manifest = run, run.manifest
        self.photographs = Photographs(run.manifest, run.truth.root)
        self.shards = store_index(SEEDS) if run.config.gallery else {}
        self.labels: set[int] = set()

    def rows(self, split: str) -> list[Row]:
        """The photographs of one split."""
        records = chosen(self.manifest.split(split), self.run.config.gallery)
        return [self.row(record) for record in tqdm(records, desc=f"pictures of {split}", disable=None)]

    def row(self, record: Record) -> Row:
        """One photograph with what the method and the ground truth say about it."""
        photograph = resize_image(self.photographs.read(record), thumbnail_size(record.size))
        tiles = [Tile("photograph", picture_uri(photograph))]
        if record.split == "train":
            tiles += [self.heat(record, photograph), self.mask("pseudo mask", MASKS, record, photograph)]
        else:
            tiles.append(self.mask("prediction", PREDICTIONS, record, photograph))
        self.labels.update(self.manifest.class_ids(record))
        if self.run.truth.masks:
            tiles.append(self.ground_truth(record, photograph))
        return Row(record.id, record.tags, tuple(tiles))

    def heat(self, record: Record, photograph: Picture) -> Tile:
        """The map of the class with the highest peak before any normalisation."""
        if record.id not in self.shards:
            raise UserError(f"{SEEDS} has no maps of {record.id}; run `dvc repro --force extract_cams`")
        entry = read_entry(self.shards[record.id], record.id)
        if not entry.class_ids:
            return Tile("no tag, so no map", None)
        peaks = np.mean([scale.amax(dim=(1, 2)).numpy() for scale in entry.maps], axis=0)
        strongest = int(peaks.argmax())
        maps, _ = fused_maps(entry, thumbnail_size(record.size))
        name = self.manifest.classes[entry.class_ids[strongest] - 1]
        return Tile(f"map of {name}", picture_uri(heat_overlay(photograph, maps[strongest])))

    def mask(self, text: str, folder: Path, record: Record, photograph: Picture) -> Tile:
        """A mask that an earlier stage has written."""
        return self.overlay(text, read_mask(folder / f"{record.id}.png", record.size), photograph)

    def ground_truth(self, record: Record, photograph: Picture) -> Tile:
        """The mask that came with the data set, where there is one."""
        if record.id not in self.run.truth.masks:
            return Tile("no ground truth", None)
        return self.overlay("ground truth", self.run.truth.read(record), photograph)

    def overlay(self, text: str, labels: NDArray[np.uint8], photograph: Picture) -> Tile:
        """Labels over the photograph."""
        height, width, _ = photograph.shape
        small = resize_labels(labels, (height, width))
        self.labels.update(np.unique(small).tolist())
        return Tile(text, picture_uri(label_overlay(photograph, small)))

    def legend(self) -> list[tuple[str, str]]:
        """Name and colour of each class shown."""
        palette = voc_palette()
        named: Sequence[tuple[int, str]] = list(enumerate(self.manifest.classes, start=1))
        return [(name, css_colour(palette[label])) for label, name in named if label in self.labels]


if __name__ == "__main__":
    run_light_stage(main)
