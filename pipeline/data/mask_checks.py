"""Ground-truth masks as `prepare_data` finds them: which cannot be used, and which hardly mean what they say."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from models.labels import IGNORE
from pipeline.data.ground_truth import read_png
from pipeline.data.manifest import Record
from pipeline.data.masks import known_labels
from pipeline.data.sources.source import Source
from pipeline.run.errors import UserError
from pipeline.run.files import inside, sha256

BINARY_MASKS = (
    "all {count} masks hold 0 and 255 alone, such as {some}; 255 is void here: write the number of the class for its "
    "pixels (1 for the first)"
)


def check_masks(
    root: Path, source: Source, records: list[Record], workers: int
) -> tuple[dict[str, str], list[str], list[str]]:
    """Read every mask once.

    Args:
        root: folder that the masks' paths are relative to.
        source: names the masks and their labels.
        records: photographs that are good, with their sizes.
        workers: threads.

    Returns:
        SHA-256 of the files by path, one line for each mask that cannot be used, and notes on masks that look wrong.
    """
    masked = [record for record in records if record.id in source.masks]
    label_map = None if source.label_map is None else np.array(source.label_map, dtype=np.uint8)

    def labels(record: Record) -> MaskLabels | str:
        try:
            path = inside(root, source.masks[record.id])
            own = read_png(path, record)
            ours = known_labels(path, own, label_map, len(source.classes))
        except UserError as error:
            return str(error)
        return MaskLabels({*np.unique(own).tolist()}, {*np.unique(ours).tolist()})

    with ThreadPoolExecutor(max(1, workers)) as pool:
        bar = tqdm(pool.map(labels, masked), total=len(masked), desc="masks", unit="mask", disable=None)
        results = list(bar)
        problems = [one for one in results if isinstance(one, str)]
        found = [one for one in results if isinstance(one, MaskLabels)]
        binary = [one for one in found if IGNORE in one.own <= {0, IGNORE}]
        if binary and len(binary) == len(masked):
            problems.append(BINARY_MASKS.format(count=len(masked), some=source.masks[masked[0].id]))
        files = sorted({source.masks[record.id] for record in masked}) if not problems else []
        hashes = dict(zip(files, pool.map(lambda file: sha256(root / file), files), strict=True))
    return hashes, problems, mask_doubts(masked, found, source) if not problems else []


class MaskLabels(NamedTuple):
    """The labels in a mask: those of its file, and those of this project."""

    own: set[int]
    ours: set[int]


def mask_doubts(records: list[Record], found: list[MaskLabels], source: Source) -> list[str]:
    """Masks that can be read and hardly mean what they say: what they show is not what the tags name."""
    pairs = list(zip(records, found, strict=True))
    names = ("background", *source.classes)
    untagged = [
        (record, sorted(names[label] for label in labels.ours - {0, IGNORE} if names[label] not in record.tags))
        for record, labels in pairs
    ]
    untagged = [(record, shown) for record, shown in untagged if shown]
    notes = []
    if binary := [record for record, labels in pairs if IGNORE in labels.own <= {0, IGNORE} and record.tags]:
        notes.append(
            f"{len(binary)} of {len(pairs)} masks hold 0 and 255 alone though tags name a class, such as "
            f"{source.masks[binary[0].id]}; 255 is void here: write the number of the class for its pixels"
        )
    if untagged:
        record, shown = untagged[0]
        notes.append(
            f"{len(untagged)} of {len(pairs)} masks show classes that their photographs' tags do not name, such as "
            f"{source.masks[record.id]}: {', '.join(shown)} (tags: {', '.join(record.tags) or 'none'}); where "
            "there are many, the masks number the classes otherwise (docs/own_photographs.md)"
        )
    return notes
