"""Compare background rules that read no mask with the best threshold that masks can tell, on finished maps.

`python -m tools.background_rules FOLDER...` takes working copies in which the stages up to refine_cams have run, and
trains nothing. For each it prints a table: the threshold of every rule, the mIoU of the refined maps there, that of the
masks after the CRF, and how far both lie below the best of all thresholds tried. The last table has the widest gaps.
Candidates are rules that no run can choose: they are compared here, and did not earn their place.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import xlogy
from tqdm import tqdm

from pipeline.data.ground_truth import GroundTruth
from pipeline.data.manifest import Record, load_manifest
from pipeline.make_masks import MakeMasksConfig
from pipeline.maps.background import Threshold
from pipeline.maps.background_rules import IMAGE_RULES, SET_RULES, STEPS, Numbers, SetRule, highest, histogram, otsu
from pipeline.maps.background_search import merit, sampled
from pipeline.maps.labellings import labels_at
from pipeline.maps.store import store_index
from pipeline.run.stage import run_stage
from pipeline.run.told import Runtime, told
from pipeline.scoring.scores import confusion_matrix, iou, mean

MAPS = Path("data/refined")
GRID: tuple[float, ...] = tuple(np.arange(5, 100, 5) / 100)


Merit = Callable[[Numbers], Numbers]
"""The merit of every threshold from a histogram of values."""


class Row(NamedTuple):
    """What a rule reached: its threshold, the mIoU of maps and of masks."""

    threshold: Threshold
    maps: float
    masks: float


def share(counts: Numbers) -> Numbers:
    """How near the foreground's share is to the one that the maps expect, which is the mean of their values.

    A map taken as probabilities expects as many foreground pixels as its values sum to.
    Source: the share of probabilistic counting (Bella et al., ICDM 2010), as a threshold.
    """
    total = max(counts.sum(), 1)
    expected = (counts * np.arange(len(counts))).sum() / STEPS / total
    return -np.abs(1 - counts.cumsum() / total - expected)[:-1]


def cross_entropy(counts: Numbers) -> Numbers:
    """Li & Lee, Pattern Recognition 26(4), 1993: the cross entropy between values and their means in both parts."""
    below, weighted = counts.cumsum(), (counts * np.arange(len(counts))).cumsum()
    parts = ((weighted, below), (weighted[-1] - weighted, below[-1] - below))
    return sum(xlogy(total, total / np.maximum(count, 1)) for total, count in parts)[:-1]


def minimum_error(counts: Numbers) -> Numbers:
    """Kittler & Illingworth, Pattern Recognition 19(1), 1986: the error of two normal distributions."""
    shares, places = counts / max(counts.sum(), 1), np.arange(len(counts))
    moments = np.array([(shares * places**power).cumsum() for power in range(3)])
    merit = np.zeros(len(counts))
    for size, first, second in (moments, moments[:, -1:] - moments):
        spread = np.maximum(second / np.maximum(size, 1e-12) - (first / np.maximum(size, 1e-12)) ** 2, 1 / 12)
        merit += 2 * xlogy(size, np.maximum(size, 1e-12)) - size * np.log(spread)
    return merit[:-1]


CANDIDATES = {
    "otsu_set": SetRule(histogram, otsu),
    "share": SetRule(histogram, share),
    "cross_entropy": SetRule(histogram, cross_entropy),
    "minimum_error": SetRule(histogram, minimum_error),
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="working copies with data/refined")
    parser.add_argument("--photographs", type=int, default=1000, help="at most so many, evenly spaced")
    arguments = parser.parse_args()
    widest: dict[str, tuple[float, float]] = {}
    for folder in arguments.folders:
        with chdir(folder):
            rows = compared(arguments.photographs)
        gaps = print_table(str(folder), rows)
        widest = {rule: tuple(map(max, gap, widest.get(rule, gap))) for rule, gap in gaps.items()}  # type: ignore[misc]
    print("| widest gap of all | maps | masks |\n|---|---:|---:|")
    for rule, (maps, masks) in sorted(widest.items(), key=lambda item: item[1][1]):
        print(f"| {rule} | {maps:.1f} | {masks:.1f} |")


def compared(most: int) -> dict[str, Row]:
    """What every rule reaches in the current folder, and the best threshold."""
    manifest, root = load_manifest(), told("runtime", Runtime).folder
    truth, train = GroundTruth(manifest, root), manifest.split("train")
    records = sampled(truth.known(train), most)
    rules = SET_RULES | CANDIDATES
    found: dict[str, Threshold] = {
        name: highest(merit(rule, MAPS, sampled(list(train.records)), root)) for name, rule in rules.items()
    }
    found |= {name: name for name in IMAGE_RULES} | {"none": None}
    tried: list[Threshold] = [*GRID, *found.values()]
    maps, masks, agreement = counted(tried, records, truth, root)
    reached = [Row(*row) for row in zip(tried, scores(maps), scores(masks), strict=True)]
    rows = dict(zip(found, reached[len(GRID) :], strict=True))
    rows["crf"] = reached[int(agreement[: len(GRID)].argmax())]
    rows["best for maps"] = max(reached, key=lambda row: row.maps)
    rows["best for masks"] = max(reached, key=lambda row: row.masks)
    return rows


def counted(
    tried: Sequence[Threshold], records: Sequence[Record], truth: GroundTruth, root: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confusion matrices of maps and of masks for each threshold, and how much both labellings agree.

    Agreement is the lesser IoU of foreground and background over all photographs, so that neither end can win.
    """
    rules, index = told("make_masks", MakeMasksConfig), store_index(MAPS)
    plain = rules.model_copy(update={"crf": None})
    shape = (len(tried), truth.labels, truth.labels)
    maps, masks, both = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros((len(tried), 2, 2), np.int64)
    for record in tqdm(records, desc=str(Path.cwd()), disable=None):
        true = truth.read(record)
        before, after = (labels_at(index[record.id], record, tried, how, root) for how in (plain, rules))
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            maps[number] += confusion_matrix(true, one, truth.labels)
            masks[number] += confusion_matrix(true, other, truth.labels)
            both[number] += confusion_matrix((one > 0).astype(np.uint8), (other > 0).astype(np.uint8), 2)
    return maps, masks, np.nan_to_num(iou(both)).min(axis=-1)


def scores(confusions: np.ndarray) -> list[float]:
    """mIoU in percent of each matrix."""
    return [100 * mean(iou(confusion)) for confusion in confusions]


def print_table(title: str, rows: dict[str, Row]) -> dict[str, tuple[float, float]]:
    """Print what every rule reached, and give how far below the best its maps and its masks are."""
    maps, masks = rows["best for maps"].maps, rows["best for masks"].masks
    print(f"\n| {title} | threshold | maps | gap | masks | gap |\n|---|---:|---:|---:|---:|---:|")
    for rule, row in rows.items():
        threshold = "-" if isinstance(row.threshold, str | None) else f"{row.threshold:.3f}"
        cells = (f"{value:.1f}" for value in (row.maps, maps - row.maps, row.masks, masks - row.masks))
        print(f"| {rule} | {threshold} | {' | '.join(cells)} |", flush=True)
    print()
    return {rule: (maps - row.maps, masks - row.masks) for rule, row in rows.items()}


if __name__ == "__main__":
    run_stage(main)
