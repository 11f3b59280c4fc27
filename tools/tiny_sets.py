"""Six small photographs in the layouts of VOC 2012 and of COCO 2014: what `make paper-check` runs on.

They come from a workspace where `prepare_data` has run, on drawn scenes or on somebody's VOC 2012.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask

from models.labels import IGNORE
from pipeline.data.ground_truth import GroundTruth
from pipeline.data.images import resize_labels, scaled_size
from pipeline.data.manifest import load_manifest
from pipeline.data.masks import write_mask
from pipeline.data.photographs import read_photograph
from pipeline.data.sources import voc2012
from pipeline.run.files import write_json, write_text

SIDE = 96
"""The longer side of the photographs, in pixels."""
PHOTOGRAPHS = {"train": 4, "val": 2}


class Sample(NamedTuple):
    """A small photograph: its split, its pixels (h, w, 3) and its labels (h, w)."""

    split: str
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def samples(root: Path) -> list[Sample]:
    """The first photographs of each split of the current workspace that have a mask.

    Args:
        root: the folder of the photographs.
    """
    manifest, found = load_manifest(), list[Sample]()
    truth = GroundTruth(manifest, root)
    for split, count in PHOTOGRAPHS.items():
        for record in truth.known(manifest.split(split))[:count]:
            size = scaled_size(record.size, SIDE)
            image = Image.fromarray(read_photograph(root, record)).resize(size[::-1])
            found.append(Sample(split, np.array(image), resize_labels(truth.read(record), size)))
    return found


def write_voc(root: Path, photographs: Sequence[Sample], classes: Sequence[str]) -> dict[str, Any]:
    """Write the layout of VOC 2012; gives the knobs `data` that name it.

    Args:
        root: where it goes.
        photographs: what it holds.
        classes: names of VOC of the labels 1, 2, ...
    """
    ids = [f"2012_{number:06d}" for number in range(len(photographs))]
    numbers = np.arange(256, dtype=np.uint8)
    numbers[1 : len(classes) + 1] = [voc2012.CLASSES.index(name) + 1 for name in classes]
    rows = []
    for name, photograph in zip(ids, photographs, strict=True):
        write_photograph(root / f"JPEGImages/{name}.jpg", photograph)
        write_mask(root / f"SegmentationClass/{name}.png", numbers[photograph.labels])
        rows.append(f"{name},{'|'.join(classes[label - 1] for label in labels_of(photograph))}\n")
    write_text(root / "labels.csv", "image,labels\n" + "".join(rows))
    for split, its in (("train", "train"), ("train_aug", "train"), ("val", "val")):
        listed = [f"{name}\n" for name, photograph in zip(ids, photographs, strict=True) if photograph.split == its]
        write_text(root / f"ImageSets/Segmentation/{split}.txt", "".join(listed))
    return {"name": "voc2012", "root": str(root), "classes": list(classes)}


def write_coco(root: Path, photographs: Sequence[Sample], classes: Sequence[str]) -> dict[str, Any]:
    """Write the layout of COCO 2014, an object for each class of a photograph; gives the knobs `data` that name it."""
    for split in PHOTOGRAPHS:
        images, annotations = [], []
        for number, photograph in enumerate(photographs):
            if photograph.split == split:
                name = f"COCO_{split}2014_{number:012d}.jpg"
                write_photograph(root / f"{split}2014" / name, photograph)
                height, width = photograph.labels.shape
                images.append({"id": number, "file_name": name, "width": width, "height": height})
                annotations += [annotation(number, photograph, label) for label in labels_of(photograph)]
        categories = [{"id": 10 * label, "name": name} for label, name in enumerate(classes, start=1)]
        content = {"images": images, "categories": categories, "annotations": annotations}
        write_json(root / f"annotations/instances_{split}2014.json", content)
    return {"name": "coco2014", "root": str(root), "coco2014": {"official": False}}


LAYOUTS: dict[str, Callable[[Path, Sequence[Sample], Sequence[str]], dict[str, Any]]] = {
    "voc2012": write_voc,
    "coco2014": write_coco,
}


def annotation(number: int, photograph: Sample, label: int) -> dict[str, Any]:
    """An object of COCO: all pixels of a label in a photograph."""
    runs = mask.encode(np.asfortranarray(photograph.labels == label, dtype=np.uint8))
    outline = {"size": list(runs["size"]), "counts": runs["counts"].decode("ascii")}
    identity = 1000 * number + label
    facts = {"id": identity, "image_id": number, "category_id": 10 * label, "iscrowd": 0}
    return facts | {"area": int(mask.area(runs)), "segmentation": outline}


def labels_of(photograph: Sample) -> list[int]:
    """The labels of the classes that a photograph shows."""
    return [int(label) for label in np.unique(photograph.labels) if 0 < label < IGNORE]


def write_photograph(path: Path, photograph: Sample) -> None:
    """Write a photograph's pixels as JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photograph.image).save(path, quality=95)
