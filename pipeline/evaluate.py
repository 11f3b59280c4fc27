"""Stage evaluate: scores of one artefact against ground-truth masks, which only this stage reads (report shows them).

Run as `python -m pipeline.evaluate seeds` (or rules, localizer, refined, masks, segmenter). Maps and masks are scored
on the training split without its tune photographs, restricted to the tags; predictions on the validation split, without
tags. Refined maps also tell what masks made of them would score at other thresholds. Where the data set has no masks,
what can be said without them is reported: coverage. Of pseudo masks the most doubtful ones are listed.
`metrics/<artefact>.json` gets the numbers that people compare,
`metrics/details/<artefact>.json` all else, `data/counts/<artefact>.npz` the confusion matrix of each photograph; rules
and localizer have details alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from models.knobs import Knobs
from pipeline.config.masks import MaskRules, ToldThreshold
from pipeline.data.ground_truth import GroundTruth
from pipeline.data.manifest import Manifest, load_manifest
from pipeline.data.masks import read_mask
from pipeline.maps.background import Threshold, hard_labels, with_background
from pipeline.maps.background_found import threshold_of
from pipeline.run.files import new_folder, read_json, write_json
from pipeline.run.stage import run_light_stage
from pipeline.run.told import Runtime, told
from pipeline.scoring.artefacts import EVALUATED, VALIDATION
from pipeline.scoring.charts import (
    save_calibration,
    save_curve,
    save_epochs,
    save_over_activation,
    save_per_class,
    save_rules,
)
from pipeline.scoring.check_first import FILE, doubts, ranking, save_ranking
from pipeline.scoring.counts import COUNTS, Counts, counts_path, save_counts
from pipeline.scoring.mask_chart import save_mask_curve
from pipeline.scoring.records import details_path, write_scores
from pipeline.scoring.scores import over_activation
from pipeline.scoring.tally import MAP_SCORES, Coverage, Item, Tally, some, true_foreground
from pipeline.scoring.warnings import mask_warnings, said, truth_warnings

METRICS = Path("metrics")
MAP_ARTEFACTS = ("seeds", "refined")
UNKNOWN = "not known"  # what a protocol says of masks of other programs
CHECKED = 100
"""Masks to check first that are listed; `tools.check_first` lists all."""


class EvaluateConfig(Knobs):
    """What evaluate is told.

    Attributes:
        bg_thresh: the background threshold, or the rule that finds it.
        protocol: what every details file states of how the artefact was made.
        code: the digest of the code of each stage that made the artefact, by the name of the stage.
        masks: how masks are made of the artefact, where it is what they are made of.
    """

    bg_thresh: ToldThreshold
    protocol: dict[str, Any]
    code: dict[str, str]
    masks: MaskRules | None = None


def main(runtime: Runtime) -> None:
    """Score the artefact named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artefact", choices=EVALUATED)
    artefact: str = parser.parse_args().artefact
    config = told(f"evaluate_{artefact}", EvaluateConfig)
    if artefact in WITHOUT_NUMBERS:
        WITHOUT_NUMBERS[artefact](config, runtime.folder)
        save_counts(counts_path(COUNTS, artefact), Counts())
        return
    manifest = load_manifest()
    split = manifest.split("val" if artefact == "segmenter" else "train")
    with new_folder(METRICS / "plots" / artefact) as plots:
        scores = evaluate(artefact, split, config, runtime.folder, plots, runtime.workers)
    if artefact in MAP_ARTEFACTS:
        scores |= evaluate_validation(artefact, manifest.split("val"), config, runtime.folder)
    write_scores(METRICS, artefact, scores)


def evaluate(
    artefact: str, manifest: Manifest, config: EvaluateConfig, root: Path, plots: Path, workers: int = 1
) -> dict[str, Any]:
    """All scores of one artefact and what they mean; charts go into `plots`, counts into `data/counts`."""
    truth, coverage = GroundTruth(manifest, root), Coverage(manifest)
    if artefact in MAP_ARTEFACTS and not any((Path("data") / artefact).glob("shard-*")):
        print(f"{artefact}: there are no maps (cams.source = none), so there is nothing to score")
        save_counts(counts_path(COUNTS, artefact), Counts())
        save_per_class(plots, {}, f"{artefact}: none", "share")
        facts = protocol(artefact, config, truth, manifest)
        return {"images": 0, "coverage": {}, "protocol": facts, "code": config.code}
    items = coverage.counted(read_artefact(artefact, manifest, config.bg_thresh))
    tally, tuning = tallied(items, truth, manifest)
    save_counts(counts_path(COUNTS, artefact), tally.counts)
    known = true_foreground(tally, tuning)
    scores: dict[str, Any] = {
        "images": len(tally.scored),
        "coverage": coverage.summary() | known,
        **said(warnings(artefact, coverage, known if truth.background else {})),
        "protocol": protocol(artefact, config, truth, manifest),
        "code": config.code,
    }
    if artefact == "masks" and config.protocol.get("refine", UNKNOWN) != UNKNOWN:  # masks that were made of maps here
        found = doubts(Path("data/refined"), Path("data/masks"), manifest, config.bg_thresh)
        save_ranking(plots / FILE, ranking(found)[:CHECKED])
    if not tally.scored:
        print(f"{artefact}: {without_scores(len(tuning.scored))}")
        save_per_class(plots, coverage.per_class(), f"{artefact}: share of tags that the mask shows", "share")
        return scores
    scores |= summary_with_tune(tally, tuning)
    if artefact == "seeds" and (earlier := store_scores(Path("data/seeds"), truth, manifest, config.bg_thresh)):
        scores["earlier"] = earlier
    if config.masks and (curve := masks_by_threshold(artefact, truth, manifest, config.masks, workers)):
        scores["mask_curve"] = curve
    if not tally.confusion[1:].any():
        print(f"WARNING: the ground truth of all {len(tally.scored)} images shows no class: foreground has no recall")
    draw(plots, artefact, scores, tally, config)
    return scores


def warnings(artefact: str, coverage: Coverage, known: dict[str, float]) -> list[str]:
    """What is plainly wrong with masks or predictions, whether or not they can be scored."""
    if artefact not in ("masks", "segmenter"):
        return []
    tagged = int(np.count_nonzero(coverage.tagged))
    found = mask_warnings(artefact, coverage.pixels, coverage.manifest.classes, tagged)
    return found + truth_warnings(known.get("true_foreground", 0.0))


def without_scores(set_apart: int) -> str:
    """Why nothing is scored, given how many photographs with a mask are set apart to choose on."""
    if not set_apart:
        return "no photograph of its split has a mask: reporting coverage only"
    return (
        f"all {set_apart} photographs with a mask are among those that data.tune sets apart to choose on: reporting "
        "coverage only; data.tune = 0 scores them"
    )


def draw(plots: Path, artefact: str, scores: dict[str, Any], tally: Tally, config: EvaluateConfig) -> None:
    """The charts of an artefact that was scored."""
    save_per_class(plots, scores["per_class"], f"{artefact}: IoU per class")
    rates = over_activation(tally.confusion, tally.manifest.classes)
    save_over_activation(plots, rates, f"{artefact}: over-activation per class")
    if "oracle" in scores:
        threshold = threshold_of(config.bg_thresh, Path("data") / artefact)
        used = 0.5 if threshold is None else threshold
        save_curve(plots, *tally.curve_points(), used if isinstance(used, float | int) else None)
    if "mask_curve" in scores:
        save_mask_curve(plots, scores["mask_curve"], *tally.curve_points())
    if "calibration" in scores:
        save_calibration(plots, scores["calibration"]["bins"], scores["calibration"]["ece"])


def masks_by_threshold(
    artefact: str, truth: GroundTruth, manifest: Manifest, rules: MaskRules, workers: int
) -> dict[str, Any]:
    """Scores of masks at several background thresholds, on a sample of the photographs that are reported."""
    from pipeline.scoring.mask_curve import mask_curve  # PyTorch is not needed for masks that are there

    rules.check_unchanged()
    return mask_curve(Path("data") / artefact, truth, truth.known(truth.reported(manifest)), rules, workers)


def tallied(items: Iterable[Item], truth: GroundTruth, manifest: Manifest) -> tuple[Tally, Tally]:
    """Counts of the photographs that are reported, and of those on which masks may choose something."""
    tally, tuning = Tally(truth, truth.reported(manifest)), Tally(truth, truth.to_choose_on(manifest))
    for item in items:
        tally.add(item)
        tuning.add(item)
    return tally, tuning


def summary_with_tune(tally: Tally, tuning: Tally) -> dict[str, Any]:
    """The scores of the photographs that are reported, and what the others chose."""
    chosen = tally.tuned_on(tuning)
    return tally.summary() | ({"tune": chosen} if chosen else {})


def evaluate_validation(artefact: str, manifest: Manifest, config: EvaluateConfig, root: Path) -> dict[str, Any]:
    """Scores of the maps of the validation photographs, where there are some; they know tags that no mask may use."""
    store = VALIDATION / artefact
    if not any(store.glob("*")):
        return {}
    tally = Tally(GroundTruth(manifest, root), manifest)
    for item in read_maps(store, manifest, config.bg_thresh):
        tally.add(item)
    scores = some(tally.summary(), MAP_SCORES) if tally.scored else {}
    return {"val": scores | {"images": len(tally.scored), "uses": "image tags of the validation photographs"}}


def evaluate_epochs(config: EvaluateConfig, root: Path) -> None:
    """Score the maps that the localizer's training left of a few photographs after every epoch, where it did.

    Per epoch and network: mIoU of the labels that its foreground maps give without a threshold (1 - the strongest class
    competes), and with its own background map where it has one.
    """
    manifest = load_manifest().split("train")
    truth = GroundTruth(manifest, root)
    rows: list[dict[str, Any]] = []
    for store in sorted(Path("data/localizer/epochs").glob("*-*")):
        network, epoch = store.name.rsplit("-", 1)
        tally, _ = tallied(read_maps(store, manifest, None), truth, manifest)
        if tally.curve.histogram.any():
            scores = tally.summary()
            rows.append(
                {
                    "network": network,
                    "epoch": int(epoch),
                    "labels_miou": scores["no_threshold"]["miou"],
                    "miou": scores["miou"],
                }
            )
    with new_folder(METRICS / "plots/localizer") as plots:
        save_epochs(plots, rows)
    epochs: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for key in ("labels_miou", "miou"):
            epochs.setdefault(row["network"], {}).setdefault(key, []).append(row[key])
    write_details("localizer", {"epochs": epochs, "training": last_epoch()}, config, truth, manifest)


def last_epoch() -> dict[str, float]:
    """What the last epoch of a second training logged; nothing where there was none."""
    path = Path("data/localizer/history.json")
    return read_json(path, "train_localizer")[-1] if path.exists() else {}


def evaluate_rules(config: EvaluateConfig, root: Path) -> None:
    """Score the maps of every propagation rule, where extract_cams was asked for several."""
    manifest = load_manifest().split("train")
    truth = GroundTruth(manifest, root)
    rules = store_scores(Path("data/rules"), truth, manifest, config.bg_thresh)
    with new_folder(METRICS / "plots/rules") as plots:
        save_rules(plots, rules)
    write_details("rules", {"rules": rules}, config, truth, manifest)


def write_details(
    artefact: str, scores: dict[str, Any], config: EvaluateConfig, truth: GroundTruth, manifest: Manifest
) -> None:
    """Write scores of several maps at once: no one number of them could stand in a metrics file."""
    facts = {"protocol": protocol(artefact, config, truth, manifest), "code": config.code}
    write_json(details_path(METRICS, artefact), scores | facts)


WITHOUT_NUMBERS = {"localizer": evaluate_epochs, "rules": evaluate_rules}


def store_scores(
    folder: Path, truth: GroundTruth, manifest: Manifest, bg_thresh: Threshold
) -> dict[str, dict[str, Any]]:
    """Scores of every store of maps below a folder, by the store's name; none where no mask is known."""
    found: dict[str, dict[str, Any]] = {}
    for store in sorted(path for path in folder.iterdir() if path.is_dir()):
        tally, tuning = tallied(read_maps(store, manifest, bg_thresh), truth, manifest)
        if tally.scored:
            found[store.name] = some(summary_with_tune(tally, tuning), MAP_SCORES) | {
                "bg_thresh_used": in_words(threshold_of(bg_thresh, store))
            }
    return found


def protocol(artefact: str, config: EvaluateConfig, truth: GroundTruth, manifest: Manifest) -> dict[str, Any]:
    """What the numbers mean: background threshold, masks, and all that the configuration says."""
    facts: dict[str, Any] = dict.fromkeys(("crf", "refine", "pixel_labels"), "none") | {
        "tags_restrict_classes": artefact != "segmenter",
        "ignored_label": "255 in ground truth; 255 in a mask counts as background",
        "masks_given": bool(truth.known(manifest)),
    }
    if not truth.background:
        facts["background"] = "none: every pixel belongs to a class"
    if artefact != "segmenter":
        facts["bg_thresh"] = in_words(config.bg_thresh)
    if artefact in ("seeds", "refined", "masks"):
        store = Path("data/refined" if artefact == "masks" else f"data/{artefact}")
        facts["bg_thresh_used"] = in_words(threshold_of(config.bg_thresh, store))
    facts |= {key: "none" if value is None else value for key, value in config.protocol.items()}
    if "confidence_pair" in facts:
        facts["bg_thresh"] = facts["bg_thresh_used"] = "confidence pair"
    return facts


def in_words(threshold: Threshold) -> float | str:
    """A threshold as details files state it."""
    return "none" if threshold is None else threshold


# --------------------------------------------------------------------------------------------------------- artefacts


def read_artefact(artefact: str, manifest: Manifest, bg_thresh: Threshold) -> Iterator[Item]:
    """The artefact of every photograph, one at a time."""
    if artefact not in MAP_ARTEFACTS:
        folder = Path("data/masks") if artefact == "masks" else Path("data/predictions")
        for record in tqdm(manifest.records, desc=artefact, disable=None):
            yield Item(record, read_mask(folder / f"{record.id}.png", record.size))
        return
    yield from read_maps(Path("data") / artefact, manifest, bg_thresh)


def read_maps(store: Path, manifest: Manifest, bg_thresh: Threshold) -> Iterator[Item]:
    """The maps of every photograph and the labels that they give, one at a time."""
    from pipeline.maps.store import fused_maps, read_store  # PyTorch is not needed for masks

    threshold = threshold_of(bg_thresh, store)
    records = {record.id: record for record in manifest.records}
    for entry in tqdm(read_store(store), total=len(records), desc=store.name, disable=None):
        maps, background = fused_maps(entry, entry.size)
        labels = hard_labels(with_background(maps, threshold, background), entry.class_ids)
        yield Item(records[entry.id], labels, maps)


if __name__ == "__main__":
    run_light_stage(main)
