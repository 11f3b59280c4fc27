"""The merit of every background threshold on a store of maps, and the thresholds that were found."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pipeline.data.images import resize_image, scaled_size
from pipeline.data.manifest import Record
from pipeline.data.photographs import read_photograph
from pipeline.maps.background_rules import STEPS, Numbers, SetRule
from pipeline.maps.store import fused_maps, read_entry, shards, store_index
from pipeline.run.files import sha256

LONG_SIDE = 128
"""Photographs and maps are compared at this longer side at most: maps are smooth, and single pixels are noise."""

PHOTOGRAPHS = 1000
"""So many at most, evenly spaced in the manifest: each adds a thousand pixels and more."""


def merits(rule: SetRule, stores: Iterable[Path], records: list[Record], root: Path) -> dict[Path, Numbers]:
    """The merit of every threshold, for each of some stores; of equal stores one is looked at."""
    known: dict[tuple[str, ...], Numbers] = {}
    found: dict[Path, Numbers] = {}
    for store in stores:
        content = tuple(map(sha256, shards(store)))
        if content not in known:
            known[content] = merit(rule, store, sampled(records), root)
        found[store] = known[content]
    return found


def merit(rule: SetRule, store: Path, records: list[Record], root: Path) -> Numbers:
    """The merit of every threshold on some photographs; 0 everywhere where none of them has a class."""
    index = store_index(store)
    total: Numbers | None = None
    for record in tqdm(records, desc=f"background of {store}", disable=None):
        entry = read_entry(index[record.id], record.id)
        if entry.class_ids:
            size = scaled_size(record.size, min(LONG_SIDE, max(record.size)))
            image = resize_image(read_photograph(root, record), size)
            evidence = rule.evidence(fused_maps(entry, size)[0].max(axis=0), image)
            total = evidence if total is None else total + evidence
    return np.zeros(STEPS) if total is None else rule.merit(total)


def sampled(records: list[Record], most: int | None = None) -> list[Record]:
    """At most so many of some photographs (`PHOTOGRAPHS`), evenly spaced."""
    count = min(most or PHOTOGRAPHS, len(records))
    return [records[number * len(records) // count] for number in range(count)]
