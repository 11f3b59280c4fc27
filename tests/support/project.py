"""A small data set in a folder, and what the stages before a test's own would have left there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from models.build import build
from pipeline.config.load import resolve
from pipeline.config.params import Params
from pipeline.config.stages import stage_configs
from pipeline.data.manifest import PREPARED, Manifest, Record, save_ground_truth, save_manifest
from pipeline.data.masks import write_mask
from pipeline.run.files import write_json
from pipeline.training.weights import save_network
from tests.support.knobs import shipped
from tests.support.stages import write_runtime

CLASSES = ("a", "b")
TAGS = (("a",), ("b",), (), ("b",), ("a",), ("b",))
SIZE = (40, 56)
PHOTOGRAPHS = "photographs"
"""Folder of photographs and masks, the data root."""

Pixels = NDArray[np.uint8]
Painter = Callable[[int, tuple[int, int], np.random.Generator], Pixels]
"""The pixels of photograph `number` of some height and width, which may depend on a generator."""


def noise(number: int, size: tuple[int, int], rng: np.random.Generator) -> Pixels:
    """Every pixel has a colour of its own."""
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8)


def write_photographs(
    folder: Path,
    tags: Sequence[Sequence[str]] = TAGS,
    sizes: Sequence[tuple[int, int]] = (SIZE,),
    *,
    classes: Sequence[str] = CLASSES,
    val: int = 0,
    ids: str = "{}",
    paint: Painter = noise,
) -> Manifest:
    """Photographs `0.png`, `1.png`, ..., their manifest, and a runtime file that names their folder as the data root.

    Args:
        folder: where a test's stages run.
        tags: of each photograph.
        sizes: height and width of each, repeated as needed.
        classes: of the data set.
        val: the last so many photographs are for validation, the others for training.
        ids: an id from a photograph's number.
        paint: draws a photograph; the same generator goes from one to the next.
    """
    write_runtime(folder, root=PHOTOGRAPHS)
    (folder / PHOTOGRAPHS).mkdir(parents=True, exist_ok=True)
    rng, records = np.random.default_rng(0), []
    for number, names in enumerate(tags):
        height, width = sizes[number % len(sizes)]
        file, split = f"{number}.png", "train" if number < len(tags) - val else "val"
        Image.fromarray(paint(number, (height, width), rng)).save(folder / PHOTOGRAPHS / file)
        records.append(Record(ids.format(number), split, file, width, height, tuple(names)))
    manifest = Manifest(tuple(records), tuple(classes))
    save_manifest(folder / PREPARED, manifest)
    return manifest


def coarse(number: int, size: tuple[int, int], rng: np.random.Generator) -> Pixels:
    """Large smooth patches of colour; photograph 4 is all grey."""
    height, width = size
    patches = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    if number == 4:
        return np.full((*size, 3), 90, dtype=np.uint8)
    return np.asarray(Image.fromarray(patches).resize((width, height)))


def write_masks(
    folder: Path, manifest: Manifest, draw: Callable[[int, Record], Pixels], tune: Sequence[str] = ()
) -> None:
    """A ground-truth mask beside each photograph: `draw` gives the labels (H, W) of one, from its number and record."""
    names = {record.id: f"{number}-mask.png" for number, record in enumerate(manifest.records)}
    for number, record in enumerate(manifest.records):
        write_mask(folder / PHOTOGRAPHS / names[record.id], draw(number, record))
    save_ground_truth(folder / PREPARED, names, None, tune=tune)


def write_network(folder: Path, description: Mapping[str, Any], seed: int = 0) -> None:
    """An untrained network as a training stage leaves one in `folder` (`data/classifier`, `data/affinity`, ...)."""
    torch.manual_seed(seed)
    save_network(folder, build(description), description)


def configure(folder: Path = Path(), stages: Collection[str] = (), **changes: Any) -> Params:
    """Write what stages (all where none is named) are told for `shipped(**changes)`; returns the checked knobs."""
    params = resolve(shipped(**changes))
    for stage, config in stage_configs(params).items():
        if not stages or stage in stages:
            write_json(folder / f"data/config/{stage}.json", config)
    return params
