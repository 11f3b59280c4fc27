"""Counting an artefact photograph by photograph: against ground truth, and without it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.labels import IGNORE
from pipeline.data.ground_truth import GroundTruth
from pipeline.data.manifest import Manifest, Record
from pipeline.scoring.boundary import BoundaryCounts
from pipeline.scoring.calibration import calibration
from pipeline.scoring.counts import Counts
from pipeline.scoring.scores import Confusion, ThresholdCurve, confusion_matrix, mean, scored_iou, summary
from pipeline.scoring.sizes import by_size
from pipeline.scoring.warnings import label_pixels

Labels = NDArray[np.uint8]
Maps = NDArray[np.float32]
MAP_SCORES = ("miou", "foreground_miou", "precision", "recall", "fpr", "fnr", "oracle", "no_threshold", "tune")


@dataclass(frozen=True)
class Item:
    """One photograph's artefact: its labels, and its maps where the artefact has maps."""

    record: Record
    labels: Labels
    maps: Maps | None = None


class Tally:
    """Counts of labels against ground truth: of each photograph, of outlines, and of maps at every threshold."""

    def __init__(self, truth: GroundTruth, manifest: Manifest) -> None:
        self.truth, self.manifest = truth, manifest
        self.scored = {record.id for record in truth.known(manifest)}
        labels = len(manifest.classes) + 1
        self.confusion: Confusion = np.zeros((labels, labels), dtype=np.int64)
        self.counts = Counts()
        self.curve = ThresholdCurve(labels)
        self.boundary = BoundaryCounts(labels)

    def add(self, item: Item) -> None:
        """Count one photograph, if its masks are known."""
        if item.record.id not in self.scored:
            return
        mask = self.truth.read(item.record)
        confusion = confusion_matrix(mask, item.labels, len(self.confusion))
        self.confusion += confusion
        self.counts.add(item.record.id, confusion)
        if item.maps is None:
            self.boundary.add(mask, item.labels)
        elif self.truth.background:
            self.curve.add(mask, item.maps, self.manifest.class_ids(item.record))

    def summary(self) -> dict[str, Any]:
        """Scores at the background threshold; of maps also the best threshold, and without any threshold.

        The best threshold is one that only masks can tell. Without a threshold, a class must exceed
        1 - the strongest class, which is a threshold of 0.5; a background map of its own competes in the main scores.
        Neither means anything where every pixel belongs to a class.
        """
        scores = summary(self.confusion, self.manifest.classes, self.truth.background)
        scores["by_size"] = by_size(self.counts, len(self.confusion))
        if self.boundary.union.any():
            scores["boundary_miou"] = self.boundary.miou(self.truth.background)
        if not self.curve.histogram.any():
            return scores
        confusions, thresholds = self.curve.confusions(), self.curve.thresholds
        best = int(self.curve.miou().argmax())
        oracle = some(summary(confusions[best], self.manifest.classes), ("miou", "foreground_miou"))
        scores["oracle"] = oracle | {
            "threshold": round(float(thresholds[best]), 4),
            "chosen_with": "the masks that it is scored on",
        }
        half = summary(confusions[int(np.flatnonzero(thresholds == 0.5)[0])], self.manifest.classes)
        scores["no_threshold"] = some(half, MAP_SCORES)
        if reliability := calibration(self.curve):
            scores["calibration"] = reliability
        return scores

    def tuned_on(self, tuning: Tally) -> dict[str, Any]:
        """What photographs set apart for it chose, and what that choice gives here; nothing where there are none.

        `miou` is theirs at the background threshold; `at_tuned` is that of the photographs counted here, at the
        threshold that is best on the others. No mask of a photograph counted here has a part in it.
        """
        if np.isnan(miou := mean(scored_iou(tuning.confusion, self.truth.background))):
            return {}
        found: dict[str, Any] = {"images": len(tuning.scored), "miou": miou}
        if tuning.curve.histogram.any() and self.curve.histogram.any():
            best = int(tuning.curve.miou().argmax())
            found["threshold"] = round(float(tuning.curve.thresholds[best]), 4)
            found["at_tuned"] = float(self.curve.miou()[best])
        return found

    def curve_points(self) -> tuple[list[float], list[float]]:
        """Thresholds and the mIoU at each."""
        return self.curve.thresholds.tolist(), self.curve.miou().tolist()


def true_foreground(*tallies: Tally) -> dict[str, float]:
    """Mean shares of foreground in the truth and beside it, of the same pixels: those whose label is known.

    Both the photographs that are reported and those to choose on belong here: coverage speaks of all of them. Nothing
    where no mask is known.
    """
    known = [cells for tally in tallies for cells in tally.counts.cells if len(cells)]
    columns = {"true_foreground": 0, "foreground_where_known": 1}
    shares = {
        name: [float(cells[cells[:, column] > 0, 2].sum() / cells[:, 2].sum()) for cells in known]
        for name, column in columns.items()
    }
    return {name: float(np.mean(values)) for name, values in shares.items() if values}


def some(scores: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Those of some scores that are there."""
    return {key: scores[key] for key in keys if key in scores}


class Coverage:
    """What masks say without ground truth: how much they cover, and whether they show what the tags name."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.foreground: list[float] = []
        self.ignored: list[float] = []
        self.shown = np.zeros(len(manifest.classes), dtype=np.int64)
        self.tagged = np.zeros(len(manifest.classes), dtype=np.int64)
        self.pixels = np.zeros(IGNORE + 1, dtype=np.int64)

    def add(self, item: Item) -> None:
        """Count one photograph."""
        self.foreground.append(float(np.mean((item.labels > 0) & (item.labels != IGNORE))))
        self.ignored.append(float(np.mean(item.labels == IGNORE)))
        pixels = label_pixels(item.labels)
        self.pixels += pixels
        found = set(np.flatnonzero(pixels).tolist())
        for label in self.manifest.class_ids(item.record):
            self.tagged[label - 1] += 1
            self.shown[label - 1] += label in found

    def counted(self, items: Iterable[Item]) -> Iterator[Item]:
        """Count photographs on their way."""
        for item in items:
            self.add(item)
            yield item

    def per_class(self) -> dict[str, float]:
        """For each class, the share of the photographs tagged with it whose mask shows it."""
        counts = zip(self.manifest.classes, self.shown.tolist(), self.tagged.tolist(), strict=True)
        return {name: shown / tagged for name, shown, tagged in counts if tagged}

    def summary(self) -> dict[str, float]:
        """Mean shares of foreground and ignored pixels, and the share of tags that a mask shows, of what there is."""
        total = int(self.tagged.sum())
        shares = {"foreground": self.foreground, "ignored": self.ignored} if self.foreground else {}
        means = {name: float(np.mean(values)) for name, values in shares.items()}
        return means | ({"tags_shown": float(self.shown.sum() / total)} if total else {})
