"""Maps of other programs as a CAM store: what the stages after it do with a network's maps, they do with these.

For each photograph a file `<id>.npy` or `<id>.npz`, with one map for each of its tags: a dictionary of numbers of
classes and their maps (PSA, SEAM, MCTformer, TransCAM), or the arrays `keys` (numbers of classes) and `high_res` or
`cam` (IRN, AMN; `high_res`, of the photograph's size, is taken where both are there). Numbers count from
`cams.first_id`, in the order of `classes.txt` beside the files or else of this run's classes. Maps are taken as they
are: values in [0, 1] that compete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from models.maps import resize
from pipeline.data.arrays import Arrays, read_arrays
from pipeline.data.class_lists import numbered
from pipeline.data.images import scaled_size
from pipeline.data.manifest import Manifest, Record
from pipeline.data.outside import ARRAYS, OutsideFiles, outside_file
from pipeline.maps.store import SHARD_IMAGES, CamEntry, shard_path, whole, write_shard
from pipeline.run.errors import UserError, listed
from pipeline.run.runtime import rank, world_size

FOLDER = "cams.folder"
"""The knob that names the folder."""
Map = NDArray[np.float32]
TOLERANCE = 0.001
"""A value may be above 1 by so much, as rounding has it."""
LONGEST = 1024
"""Maps of larger photographs are kept at this longer side, so that memory does not grow with the photograph."""


@dataclass(frozen=True)
class ForeignMaps:
    """A folder of maps.

    Attributes:
        folder: where they lie.
        first_id: the number of the first class there.
        names: the classes in the order of their numbers.
        classes: those of this run, in label order.
    """

    folder: Path
    first_id: int
    names: Sequence[str]
    classes: Sequence[str]

    def entry(self, record: Record, class_ids: Sequence[int]) -> CamEntry:
        """The maps of a photograph's tags; maps of other classes are left out.

        Args:
            record: of the photograph.
            class_ids: labels of its tags, ascending.

        Raises:
            UserError: there is no file, it cannot be used, or a tag has no map.
        """
        if not class_ids:
            return CamEntry(record.id, record.size, (), (torch.zeros(0, 1, 1),), (record.size,), fusion="scores")
        path = outside_file(self.folder, record.id, ARRAYS)
        if path is None:
            raise UserError(f"{self.folder}: no {record.id}.npy or .npz; every photograph that has a tag needs one")
        found = class_maps(path, read_arrays(path))
        numbers = {label: self.first_id + self.names.index(self.classes[label - 1]) for label in class_ids}
        if missing := {label: number for label, number in numbers.items() if number not in found}:
            raise UserError(f"{path}: {self._without(missing, found)}")
        maps = [checked(path, number, found[number]) for number in numbers.values()]
        if len(shapes := {values.shape for values in maps}) > 1:
            raise UserError(f"{path}: its maps have the shapes {', '.join(map(str, sorted(shapes)))}; they have one")
        extent = (grid_side(record.height, maps[0].shape[0]), grid_side(record.width, maps[0].shape[1]))
        kept = small(torch.from_numpy(np.stack(maps)))
        return CamEntry(record.id, record.size, tuple(class_ids), (kept,), (extent,), fusion="scores")

    def _without(self, missing: dict[int, int], found: dict[int, Map]) -> str:
        """What is wrong where tags have no map."""
        tags = ", ".join(f"{self.classes[label - 1]} (number {number})" for label, number in missing.items())
        there = ", ".join(map(str, sorted(found))) or "none"
        return (
            f"no map of the tag {tags}; the numbers there are {there}. They count from cams.first_id = {self.first_id} "
            "in the order of classes.txt beside the files or, without one, of data/prepared/classes.json"
        )


def class_maps(path: Path, arrays: Arrays) -> dict[int, Map]:
    """The maps (h, w) of a file by the number of their class.

    Raises:
        UserError: its arrays are none of the known layouts.
    """
    kind = "high_res" if "high_res" in arrays else "cam"
    if "keys" in arrays and kind in arrays:
        keys, maps = arrays["keys"].reshape(-1), arrays[kind]
        if maps.ndim == 3 and len(maps) == len(keys):
            return {int(key): values for key, values in zip(keys, maps, strict=True)}
        raise UserError(f"{path}: {len(keys)} keys, but {kind} has the shape {maps.shape}; it is (keys, height, width)")
    found = {key: values for key, values in arrays.items() if isinstance(key, int)}
    if len(found) == len(arrays):
        return found
    names = ", ".join(str(key) for key in arrays)
    raise UserError(f"{path}: it holds {names}; maps stand under numbers of classes, or as keys with high_res or cam")


def checked(path: Path, number: int, values: Map) -> Map:
    """A map as float32 in [0, 1]; values below 0, as min-max normalisation leaves some, become 0.

    Raises:
        UserError: it has another shape, or other values.
    """
    if values.ndim != 2 or not values.size:
        raise UserError(f"{path}: the map of number {number} has the shape {values.shape}; it is (height, width)")
    if values.dtype.kind != "f":
        raise UserError(f"{path}: the map of number {number} is {values.dtype}; maps are floating-point numbers")
    if not np.isfinite(values).all():
        raise UserError(f"{path}: the map of number {number} is not finite")
    if values.max() > 1 + TOLERANCE:
        raise UserError(
            f"{path}: the map of number {number} reaches {values.max():.4g}; maps are taken as they are, in [0, 1]: "
            "divide each by its maximum"
        )
    return values.astype(np.float32).clip(0, 1)


def grid_side(side: int, cells: int) -> int:
    """How many pixels of a photograph the cells along one side cover: whole strides, where they fit, else the side."""
    stride = -(-side // cells)
    return stride * cells if -(-side // stride) == cells else side


def small(maps: torch.Tensor) -> torch.Tensor:
    """Maps (K, h, w) of at most `LONGEST` cells along the longer side."""
    size = (maps.shape[1], maps.shape[2])
    return maps if max(size) <= LONGEST else resize(maps[None], scaled_size(size, LONGEST))[0]


def import_store(manifest: Manifest, files: OutsideFiles, first_id: int, store: Path, title: str = "maps") -> None:
    """Write the shards that a store does not have yet; several processes take every n-th.

    Args:
        manifest: the photographs.
        files: of the maps.
        first_id: the number of the first class there.
        store: the folder of the shards.
        title: of the progress bar.

    Raises:
        UserError: files are missing or cannot be used; those of a shard are named at once.
    """
    foreign = ForeignMaps(files.path, first_id, numbered(files.path, manifest.classes), manifest.classes)
    store.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(manifest.records), SHARD_IMAGES)
    for number in range(rank(), len(starts), world_size()):
        if not whole(path := shard_path(store, number)):
            records = manifest.records[starts[number] : starts[number] + SHARD_IMAGES]
            title_of = f"{title}, shard {number + 1} of {len(starts)}"
            facts = {"imported": files.sha256, "first_id": first_id}
            write_shard(path, entries_of(foreign, manifest, records, title_of), facts)


def entries_of(foreign: ForeignMaps, manifest: Manifest, records: Sequence[Record], title: str) -> list[CamEntry]:
    """The maps of some photographs.

    Raises:
        UserError: naming every file that cannot be used.
    """
    entries, problems = list[CamEntry](), list[str]()
    for record in tqdm(records, desc=title, disable=None):
        try:
            entries.append(foreign.entry(record, manifest.class_ids(record)))
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError(f"{FOLDER} = {foreign.folder}: maps cannot be used:\n{listed(problems)}")
    return entries
