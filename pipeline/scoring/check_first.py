"""Which pseudo masks a person should look at first, by signs that need no true mask.

Each sign is a share from 0 (fine) to 1 (doubtful); a photograph's doubt is their mean:

- `map_differs`: how far the mask of a tag leaves its map (1 - the soft IoU of both), of the tag where it is farthest; 1
  where the mask does not show the tag at all.
- `unsure`: how close the two strongest channels of the maps are, over the photograph.
- `prediction_differs`: how far a network that learned from such masks disagrees, where its predictions are given.

Only those are used that told bad masks from good ones where true masks are known: how sure maps are near the outlines,
and the part of the mask that the CRF has changed, did not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.labels import IGNORE
from pipeline.data.images import resize_labels, scaled_size
from pipeline.data.manifest import Manifest
from pipeline.data.masks import read_mask
from pipeline.maps.background import Maps, Threshold, with_background
from pipeline.maps.background_found import threshold_of
from pipeline.run.files import write_text

Labels = NDArray[np.uint8]
SIDE = 128
"""The longer side in pixels that masks and maps are compared at."""
FILE = "check_first.csv"
SIGNS = ("map_differs", "unsure", "prediction_differs")


@dataclass(frozen=True)
class Doubt:
    """A photograph's mask, the signs against it by their names in `SIGNS`, and the tags that it does not show."""

    id: str
    signs: dict[str, float]
    missing: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        """The mean of the signs; 0 where there are none."""
        return float(np.mean([*self.signs.values()])) if self.signs else 0.0


def doubts(
    store: Path, masks: Path, manifest: Manifest, bg_thresh: Threshold, predictions: Path | None = None
) -> Iterator[Doubt]:
    """The signs against the masks of some photographs, one at a time.

    Args:
        store: of the maps that the masks were made of.
        masks: folder of `<id>.png`.
        manifest: the photographs.
        bg_thresh: the background threshold, or the rule that found it.
        predictions: folder of `<id>.png`, of some photographs or all; None: there are none.
    """
    from pipeline.maps.store import fused_maps, read_store  # PyTorch is not needed by who only reads the table

    records, threshold = {record.id: record for record in manifest.records}, threshold_of(bg_thresh, store)
    for entry in read_store(store):
        if (record := records.get(entry.id)) is None:
            continue
        size = scaled_size(record.size, SIDE)
        files = [masks / f"{record.id}.png", *([predictions / f"{record.id}.png"] if predictions else [])]
        labels = [resize_labels(read_mask(file, record.size), size) for file in files if file.exists()]
        maps, background = fused_maps(entry, size)
        signs = signs_of(labels[0], with_background(maps, threshold, background), entry.class_ids, *labels[1:])
        absent = [label for label in entry.class_ids if not (labels[0] == label).any()]
        yield Doubt(record.id, signs, tuple(manifest.classes[label - 1] for label in absent))


def signs_of(
    mask: Labels, scores: Maps, class_ids: Sequence[int], prediction: Labels | None = None
) -> dict[str, float]:
    """The signs against one mask.

    Args:
        mask: (H, W).
        scores: (K + 1, H, W) of background and classes.
        class_ids: labels of the K classes, which are the photograph's tags; no sign speaks of one without.
        prediction: (H, W) of a network, or None.
    """
    signs = {}
    if class_ids:
        similar = [soft_iou(mask == label, values) for label, values in zip(class_ids, scores[1:], strict=True)]
        second, first = np.sort(scores, axis=0)[-2:]
        signs = {"map_differs": 1 - min(similar), "unsure": float(1 - np.clip(first - second, 0, 1).mean())}
    if prediction is not None and (differs := differing(mask, prediction)) is not None:
        signs["prediction_differs"] = differs
    return signs


def soft_iou(region: NDArray[np.bool_], values: Maps) -> float:
    """Intersection over union of a region (H, W) and a map in [0, 1]; 0 where both are empty."""
    union = np.maximum(region, values).sum()
    return float(np.minimum(region, values).sum() / union) if union > 0 else 0.0


def differing(mask: Labels, other: Labels) -> float | None:
    """The share of the pixels that either shows a class on, on which the two differ; ignored ones do not count."""
    counted = (mask != IGNORE) & (other != IGNORE) & ((mask > 0) | (other > 0))
    return float(np.mean(mask[counted] != other[counted])) if counted.any() else None


def ranking(found: Iterable[Doubt]) -> pd.DataFrame:
    """A table with the most doubtful mask first; only signs that some photograph has are columns."""
    rows = [{"id": d.id, "doubt": d.score, "tags_missing": "|".join(d.missing)} | d.signs for d in found]
    table = pd.DataFrame(rows, columns=["id", "doubt", "tags_missing", *SIGNS]).round(4)
    return table.dropna(axis="columns", how="all").sort_values(["doubt", "id"], ascending=[False, True])


def save_ranking(path: Path, table: pd.DataFrame) -> None:
    """Write the table as CSV, atomically."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))
