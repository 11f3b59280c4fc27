"""The bundled data set: scenes of four-legged creatures, drawn in code, deterministic from a seed, no download.

The six classes share body, legs, tail and head in their own proportions; a part at the head tells them apart for
certain (antlers, long ears, curled horns, one horn, a trunk, round ears). Most coats are the class's own, the others
are drawn from all. A classifier therefore looks at that part first, and its CAM covers little else: the problem that
weakly-supervised segmentation works on. Some grounds go together with a class (`FAVOURITE_GROUND`), so that a CAM may
also leak onto the background. Stones wear coats too, bodies are lit and cast shadows, light falls unevenly, and the
picture is blurred and noisy: grouping colours alone finds no creature. Bodies are solid and legs thin, and both are
wide enough for the grid of a CAM. Masks are exact. `make instrument` holds all of this to bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.config.data import ScenesData
from pipeline.data.drawing.creatures import CLASSES
from pipeline.data.drawing.scene import draw_scene
from pipeline.data.manifest import PREPARED, Record
from pipeline.data.masks import write_mask
from pipeline.data.sources.source import PrepareDataConfig, Source, label_map
from pipeline.run.files import new_folder
from pipeline.run.pool import in_processes


def read(config: PrepareDataConfig, workers: int) -> Source:
    """Draw the data set into `data/prepared/scenes` and describe it."""
    settings = ScenesData.model_validate(config.source)
    wanted = CLASSES if config.classes == "all" else tuple(config.classes)
    unknown = [name for name in wanted if name not in CLASSES]
    problems = [f"data.classes: scenes draw no {name!r}; they draw {', '.join(CLASSES)}" for name in unknown]
    if problems:
        return Source([], list(wanted), problems=problems)
    counts = {"train": settings.train, "val": settings.val}
    places = [(split, n) for split, count in counts.items() for n in range(min(count, config.limit or count))]
    with new_folder(PREPARED / "scenes") as folder:
        for kind in ("images", "masks"):
            (folder / kind).mkdir()
        job = partial(save_scene, folder, settings, wanted)
        records = in_processes(job, places, title="drawing scenes", workers=workers)
    masks = {record.id: f"masks/{record.id}.png" for record in records}
    return Source(records, list(wanted), masks, label_map(CLASSES, wanted))


def save_scene(folder: Path, settings: ScenesData, wanted: Sequence[str], place: tuple[str, int]) -> Record:
    """Draw one scene, given its split and number, and write its picture and mask as PNG."""
    split, number = place
    name = f"{split}_{number:05d}"
    image, labels = draw_scene(settings.seed, split, number, settings.size)
    Image.fromarray(image).save(folder / "images" / f"{name}.png", compress_level=6)
    write_mask(folder / "masks" / f"{name}.png", labels)
    tags = tuple(c for c in wanted if c in CLASSES and np.any(labels == CLASSES.index(c) + 1))
    return Record(name, split, f"images/{name}.png", image.shape[1], image.shape[0], tags)
