"""The report's photographs, with what the method and the ground truth say about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.data.images import resize_image, resize_labels
from pipeline.data.manifest import Manifest, Record
from pipeline.data.masks import read_mask, voc_palette
from pipeline.data.photographs import Photographs
from pipeline.maps.store import fused_maps, read_entry, store_index
from pipeline.report.finished import Run
from pipeline.report.pictures import (
    Picture,
    css_colour,
    heat_overlay,
    label_overlay,
    picture_uri,
    thumbnail_size,
)
from pipeline.run.errors import UserError

SEEDS, MASKS, PREDICTIONS = Path("data/seeds"), Path("data/masks"), Path("data/predictions")
MASK_NAMES = {"maps": "pseudo mask", "import": "imported mask", "truth": "true mask"}
"""By `masks.source`."""


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
        self.has_maps = run.config.params["cams"]["source"] != "none"
        self.shards = store_index(SEEDS) if run.config.gallery and self.has_maps else {}
        self.mask_name = MASK_NAMES[run.config.params["masks"]["source"]]
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
            tiles += [self.heat(record, photograph)] if self.has_maps else []
            tiles.append(self.mask(self.mask_name, MASKS, record, photograph))
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
