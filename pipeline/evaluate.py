"""Stage evaluate: scores of one artefact against ground-truth masks, which only this stage reads (report shows them).

Run as `python -m pipeline.evaluate seeds` (or refined, masks, segmenter). Maps and masks are scored on the training
split, restricted to the tags; predictions on the validation split, without tags. Where the data set has no masks,
what can be said without them is reported: coverage.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.background import Rule, hard_labels, with_background
from pipeline.charts import save_curve, save_per_class
from pipeline.config import ARTEFACTS, EvaluateConfig, stage_config
from pipeline.files import new_folder, write_json
from pipeline.ground_truth import GroundTruth
from pipeline.manifest import Manifest, Record, load_manifest
from pipeline.palette import IGNORE, read_mask
from pipeline.scores import Confusion, ThresholdCurve, confusion_matrix, iou, mean, summary
from pipeline.stage import run_stage

Labels = NDArray[np.uint8]
Maps = NDArray[np.float32]
MAP_ARTEFACTS = ("seeds", "refined")


@dataclass(frozen=True)
class Item:
    """One photograph's artefact: its labels, and its maps where the artefact has maps."""

    record: Record
    labels: Labels
    maps: Maps | None


def main() -> None:
    """Score the artefact named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artefact", choices=ARTEFACTS)
    artefact: str = parser.parse_args().artefact
    config = stage_config(f"evaluate_{artefact}", EvaluateConfig)
    manifest = load_manifest()
    split = manifest.split("val" if artefact == "segmenter" else "train")
    with new_folder(Path("metrics/plots") / artefact) as plots:
        metrics = evaluate(artefact, split, config, plots)
    write_json(Path("metrics") / f"{artefact}.json", metrics)


def evaluate(artefact: str, manifest: Manifest, config: EvaluateConfig, plots: Path) -> dict[str, Any]:
    """All numbers of one artefact; charts go into `plots`."""
    truth = GroundTruth(manifest)
    scored = {record.id for record in truth.known(manifest)}
    labels = len(manifest.classes) + 1
    confusion: Confusion = np.zeros((labels, labels), dtype=np.int64)
    curve, coverage = ThresholdCurve(labels), Coverage(manifest)
    items = tqdm(
        read_artefact(artefact, manifest, config.bg_thresh),
        total=len(manifest.records),
        desc=artefact,
        disable=None,
    )
    for item in items:
        coverage.add(item)
        if item.record.id in scored:
            mask = truth.read(item.record)
            confusion += confusion_matrix(mask, item.labels, labels)
            if item.maps is not None:
                curve.add(mask, item.maps, manifest.class_ids(item.record))
    metrics: dict[str, Any] = {
        "images": len(scored),
        "coverage": coverage.summary(),
        "protocol": protocol(artefact, config, scored),
    }
    if not scored:
        print("no masks were given: reporting coverage only")
        save_per_class(plots, coverage.per_class(), f"{artefact}: share of tags that the mask shows", "share")
        return metrics
    metrics |= summary(confusion, manifest.classes)
    if not confusion[1:].any():
        print(f"WARNING: the ground truth of all {len(scored)} images shows no class: foreground has no recall")
    save_per_class(plots, metrics["per_class"], f"{artefact}: IoU per class")
    if artefact in MAP_ARTEFACTS and confusion.any():
        metrics["oracle"] = save_oracle(curve, config.bg_thresh, plots)
    return metrics


def save_oracle(curve: ThresholdCurve, rule: Rule, plots: Path) -> dict[str, float | str]:
    """The best threshold, which only masks can tell, and the curve that it comes from."""
    miou = curve.miou()
    best = int(miou.argmax())
    used = 0.5 if rule is None else rule if isinstance(rule, float | int) else None
    save_curve(plots, curve.thresholds.tolist(), miou.tolist(), used)
    foreground = [mean(values[1:]) for values in iou(curve.confusions())]
    return {
        "miou": float(miou[best]),
        "threshold": round(float(curve.thresholds[best]), 4),
        **({"foreground_miou": foreground[best]} if not np.isnan(foreground[best]) else {}),
        "chosen_with": "the masks that it is scored on",
    }


def protocol(artefact: str, config: EvaluateConfig, scored: set[str]) -> dict[str, Any]:
    """What the numbers mean: split, background rule, and all that the configuration says."""
    rule = "none" if config.bg_thresh is None else config.bg_thresh
    facts = {"crf": "none", "refine": "none"} | {k: "none" if v is None else v for k, v in config.protocol.items()}
    facts |= {
        "split": "val" if artefact == "segmenter" else "train",
        "tags_restrict_classes": artefact != "segmenter",
        "ignored_label": "255 in ground truth; 255 in a mask counts as background",
        "pixel_labels": "none but the oracle threshold" if artefact in MAP_ARTEFACTS and scored else "none",
        "masks_given": bool(scored),
    }
    return facts if artefact == "segmenter" else facts | {"bg_thresh": rule}


# --------------------------------------------------------------------------------------------------------- artefacts


def read_artefact(artefact: str, manifest: Manifest, rule: Rule) -> Iterator[Item]:
    """The artefact of every photograph, one at a time."""
    if artefact not in MAP_ARTEFACTS:
        folder = Path("data/masks") if artefact == "masks" else Path("data/segmenter/predictions")
        for record in manifest.records:
            yield Item(record, read_mask(folder / f"{record.id}.png", record.size), None)
        return
    from pipeline.cam_store import fused_maps, read_store  # PyTorch is not needed for masks

    records = {record.id: record for record in manifest.records}
    for entry in read_store(Path("data") / artefact):
        maps, background = fused_maps(entry, entry.size)
        yield Item(records[entry.id], hard_labels(with_background(maps, rule, background), entry.class_ids), maps)


class Coverage:
    """What masks say without ground truth: how much they cover, and whether they show what the tags name."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.foreground: list[float] = []
        self.ignored: list[float] = []
        self.shown = np.zeros(len(manifest.classes), dtype=np.int64)
        self.tagged = np.zeros(len(manifest.classes), dtype=np.int64)

    def add(self, item: Item) -> None:
        """Count one photograph."""
        self.foreground.append(float(np.mean((item.labels > 0) & (item.labels != IGNORE))))
        self.ignored.append(float(np.mean(item.labels == IGNORE)))
        found = set(np.unique(item.labels).tolist())
        for label in self.manifest.class_ids(item.record):
            self.tagged[label - 1] += 1
            self.shown[label - 1] += label in found

    def per_class(self) -> dict[str, float]:
        """For each class, the share of the photographs tagged with it whose mask shows it."""
        counts = zip(self.manifest.classes, self.shown.tolist(), self.tagged.tolist(), strict=True)
        return {name: shown / tagged for name, shown, tagged in counts if tagged}

    def summary(self) -> dict[str, float]:
        """Mean shares of foreground and ignored pixels, and the share of tags that a mask shows."""
        total = int(self.tagged.sum())
        return {
            "foreground": float(np.mean(self.foreground)),
            "ignored": float(np.mean(self.ignored)),
            **({"tags_shown": float(self.shown.sum() / total)} if total else {}),
        }


if __name__ == "__main__":
    run_stage(main)
