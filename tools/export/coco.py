"""COCO JSON with run-length masks, as pycocotools and detectron2 read it."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from models.labels import IGNORE
from tools.export.labelled import Labelled, Region, regions, write_compact


def write_coco(exported: Labelled, folder: Path) -> None:
    """`<split>.json`: one annotation for each class of a photograph; 255 as `iscrowd`, with a category of its own.

    `file_name` is the photograph's path below the data root.
    """
    for split in exported.splits():
        numbers, images, annotations = count(1), list[Any](), list[Any]()
        for image_id, (record, labels) in enumerate(exported.masks(split), start=1):
            size = {"width": record.width, "height": record.height}
            images.append({"id": image_id, "file_name": record.image, **size})
            for label, region in regions(labels):
                found = {"id": next(numbers), "image_id": image_id, "category_id": label, **encoded(region)}
                annotations.append(found | {"iscrowd": int(label == IGNORE)})
        used = {annotation["category_id"] for annotation in annotations}
        categories = [{"id": k, "name": name} for k, name in exported.names.items() if k != IGNORE or k in used]
        content = {"images": images, "categories": categories, "annotations": annotations}
        write_compact(folder / f"{split}.json", content)


def encoded(region: Region) -> dict[str, Any]:
    """Pixels (H, W) as compressed run lengths, with their area and box."""
    runs = rle.encode(np.asfortranarray(region.astype(np.uint8)))
    found = {"area": int(rle.area(runs)), "bbox": rle.toBbox(runs).tolist()}
    return found | {"segmentation": {"size": list(region.shape), "counts": runs["counts"].decode("ascii")}}
