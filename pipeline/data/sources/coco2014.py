"""COCO 2014, from its two files of instances, or another data set in their format.

    annotations/instances_{train,val}2014.json   photographs, classes, outlines of objects
    {train,val}2014/<file_name>                  the photographs

Photographs without objects are left out, which leaves 82,081 and 40,137. Tags are the classes of all objects, crowds
included. Ids of classes have gaps there (1 to 90 for 80 classes); here they are numbered 1, 2, 3 in that order. There
are no mask files: `prepare_data` draws masks from the outlines (see `pipeline.data.outlines`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pycocotools import mask
from pydantic import BaseModel, Field, ValidationError
from tqdm import tqdm

from models.labels import IGNORE
from pipeline.config.data import CocoData
from pipeline.data.manifest import Record
from pipeline.data.outlines import Outline
from pipeline.data.sources.source import SPLITS, PrepareDataConfig, Source, data_root, label_map
from pipeline.run.errors import UserError

COUNTS = {"train": 82081, "val": 40137}
CLASSES = 80
PAGE = "https://cocodataset.org/#download"

Side = Annotated[int, Field(ge=1)]
Coordinate = Annotated[float, Field(allow_inf_nan=False)]


class RunLengths(BaseModel):
    """Pixels of an object, column by column: lengths of runs in turn outside and inside, or COCO's text of them."""

    size: tuple[Side, Side]
    counts: list[int] | str


class Image(BaseModel):
    """A photograph."""

    id: int
    file_name: str
    width: Side
    height: Side


class Category(BaseModel):
    """A class."""

    id: int
    name: Annotated[str, Field(pattern=r"^[^|\x00-\x1f]+$")]  # tags are parted by | in the manifest


class Annotation(BaseModel):
    """An object: polygons of x, y, x, y and so on, or run lengths."""

    id: int
    image_id: int
    category_id: int
    iscrowd: Literal[0, 1] = 0
    segmentation: list[list[Coordinate]] | RunLengths


class Instances(BaseModel):
    """A file of instances, as far as it is read."""

    images: list[Image]
    categories: list[Category]
    annotations: list[Annotation]


class Part(NamedTuple):
    """What one file gives: photographs with objects, their outlines by id, names of classes, number of others."""

    records: list[Record]
    outlines: dict[str, list[Outline]]
    classes: list[str]
    empty: int


def read(config: PrepareDataConfig, workers: int) -> Source:
    """Read both files; every problem is collected.

    Raises:
        UserError: a file or a folder of photographs is missing, or a file is not in COCO's format.
    """
    settings, root = CocoData.model_validate(config.source), data_root(config)
    for split in SPLITS:
        _check_there(root, split)
    problems: list[str] = []
    train, val = (_part(root, split, settings, config, problems) for split in SPLITS)
    if train.classes != val.classes:
        problems.append(f"{_annotations(root, 'val')}: has other categories than {_annotations(root, 'train').name}")
    classes = train.classes if isinstance(config.classes, str) else config.classes
    known = ", ".join(train.classes)
    problems += [f"data.classes: {name!r} is no COCO class ({known})" for name in classes if name not in train.classes]
    records = [
        Record(r.id, r.split, r.image, r.width, r.height, tuple(name for name in classes if name in r.tags))
        for r in (*train.records, *val.records)
    ]
    notes = ["masks are drawn from outlines: crowds are void (255); where objects overlap, the smaller one wins"]
    if train.empty or val.empty:
        notes.append(f"{train.empty} train and {val.empty} val photographs without objects are left out")
    outlines = train.outlines | val.outlines
    labels = label_map(train.classes, classes)
    return Source(records, list(classes), label_map=labels, notes=notes, problems=problems, outlines=outlines)


def _annotations(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}2014.json"


def _check_there(root: Path, split: str) -> None:
    path, photographs = _annotations(root, split), root / f"{split}2014"
    if not path.is_file():
        raise UserError(f"data.root = {root}: {path} not found; unpack annotations_trainval2014.zip there, {PAGE}")
    if not photographs.is_dir():
        raise UserError(f"data.root = {root}: no folder {photographs}; unpack {split}2014.zip there, {PAGE}")


def _part(root: Path, split: str, settings: CocoData, config: PrepareDataConfig, problems: list[str]) -> Part:
    """One file's photographs in the order of their ids, at most `config.limit`, with all that is wrong in it."""
    path = _annotations(root, split)
    instances = _instances(path)
    classes = sorted(instances.categories, key=lambda category: category.id)
    labels = {category.id: label for label, category in enumerate(classes, start=1)}
    images = {image.id: image for image in instances.images}
    faults = [*_faults(instances, labels, images, config.max_megapixels)]
    objects = defaultdict(list)
    for annotation in sorted(instances.annotations, key=lambda annotation: annotation.id):
        objects[annotation.image_id].append(annotation)
    found = sorted(objects.keys() & images.keys())
    if settings.official:
        faults += _wrong_counts(split, len(found), len(classes))
    records, outlines = [], {}
    for number in tqdm(found[: config.limit] if not faults else [], desc=f"{split} outlines", disable=None):
        image, own = images[number], objects[number]
        identity = PurePosixPath(image.file_name).stem
        present = {labels[annotation.category_id] for annotation in own}
        tags = tuple(category.name for label, category in enumerate(classes, start=1) if label in present)
        photograph = f"{split}2014/{image.file_name}"
        records.append(Record(identity, split, photograph, image.width, image.height, tags))
        outlines[identity] = list(_outlines(own, labels, (image.height, image.width), faults))
    problems += [f"{path}: {fault}" for fault in faults]
    return Part(records, outlines, [category.name for category in classes], len(images) - len(found))


def _instances(path: Path) -> Instances:
    """A file of instances.

    Raises:
        UserError: it is not JSON, or not in COCO's format; the first places that are wrong are named.
    """
    try:
        return Instances.model_validate_json(path.read_bytes(), strict=False)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValidationError as error:
        found = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}".removeprefix(": ") for item in error.errors()[:3]]
        more = f", and {error.error_count() - len(found)} more" if error.error_count() > len(found) else ""
        raise UserError(
            f"{path}: is no file of COCO instances ({'; '.join(found)}{more}); unpack annotations_trainval2014.zip "
            f"again, {PAGE}"
        ) from error


def _faults(
    instances: Instances, labels: dict[int, int], images: dict[int, Image], max_megapixels: float
) -> Iterable[str]:
    """What the file contradicts itself in, or what cannot be used of it."""
    if len(labels) >= IGNORE:
        yield f"{len(labels)} categories, but masks hold {IGNORE - 1}"
    if len(labels) < len(instances.categories):
        yield "two categories have the same id"
    if len({category.name for category in instances.categories}) < len(instances.categories):
        yield "two categories have the same name"
    if len(images) < len(instances.images):
        yield "two images have the same id"
    if len({image.file_name for image in instances.images}) < len(instances.images):
        yield "two images have the same file_name"
    for image in instances.images:
        if not re.fullmatch(r"\w[\w-]*\.\w+", image.file_name):
            yield f"image {image.id}: {image.file_name!r} is no plain name of a photograph"
        if image.width * image.height > max_megapixels * 1e6:
            size = f"{image.width}x{image.height}"
            yield f"image {image.id}: {size} pixels are more than data.max_megapixels = {max_megapixels:g}"
    for annotation in instances.annotations:
        if annotation.category_id not in labels:
            yield f"annotation {annotation.id}: there is no category {annotation.category_id}"
        if annotation.image_id not in images:
            yield f"annotation {annotation.id}: there is no image {annotation.image_id}"


def _wrong_counts(split: str, photographs: int, classes: int) -> list[str]:
    """COCO 2014 has known numbers; other numbers mean other results than the published ones."""
    wrong = []
    if photographs != COUNTS[split]:
        wrong.append(f"{photographs:,} photographs have objects, COCO 2014 has {COUNTS[split]:,}")
    if classes != CLASSES:
        wrong.append(f"{classes} categories, COCO 2014 has {CLASSES}")
    advice = "restore the file, or set data.coco2014.official to false if this is another data set"
    return [f"{fault}; {advice}" for fault in wrong]


# ------------------------------------------------------------------------------------------------------------- outlines


def _outlines(
    annotations: Sequence[Annotation], labels: dict[int, int], size: tuple[int, int], faults: list[str]
) -> Iterable[Outline]:
    """The outlines of a photograph's objects; those that cannot be drawn become faults."""
    for annotation in annotations:
        try:
            runs = run_lengths(annotation.segmentation, size)
        except ValueError as error:
            faults.append(f"annotation {annotation.id}: {error}")
            continue
        yield Outline(labels[annotation.category_id], runs, bool(annotation.iscrowd))


def run_lengths(segmentation: list[list[float]] | RunLengths, size: tuple[int, int]) -> bytes:
    """The pixels of an object as compressed run lengths.

    Args:
        segmentation: polygons, of which those with fewer than three corners have no pixel, or run lengths.
        size: height and width of the photograph.

    Raises:
        ValueError: saying what is wrong with it.
    """
    height, width = size
    if isinstance(segmentation, RunLengths):
        return _checked_runs(segmentation, size)
    if any(len(polygon) % 2 for polygon in segmentation):
        raise ValueError("a polygon has an odd number of coordinates")
    polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
    for polygon in polygons:
        corners = np.reshape(polygon, (-1, 2))
        if (corners < (-width, -height)).any() or (corners > (2 * width, 2 * height)).any():
            raise ValueError(f"a polygon lies far outside the photograph of {width}x{height}")
    parts = mask.frPyObjects(polygons, height, width) if polygons else []
    return bytes(mask.merge(parts)["counts"]) if parts else bytes(_nothing(size))


def _checked_runs(runs: RunLengths, size: tuple[int, int]) -> bytes:
    """Run lengths of a photograph of this size, compressed."""
    if runs.size != size:
        raise ValueError(f"run lengths of {runs.size[1]}x{runs.size[0]} for a photograph of {size[1]}x{size[0]}")
    counts = runs.counts if isinstance(runs.counts, list) else _counts(runs.counts)
    if sum(counts) != size[0] * size[1] or min(counts) < 0:  # the library reads beyond the end of others
        raise ValueError(f"its run lengths do not add up to the {size[0] * size[1]} pixels of the photograph")
    return bytes(mask.frPyObjects({"size": list(size), "counts": counts}, *size)["counts"])


def _counts(text: str) -> list[int]:
    """The lengths that COCO's text of runs says: of each character, less 48, five bits, the lowest ones first.

    A sixth bit says that more characters follow. The fifth bit of the last one is the sign. From the fourth length on,
    the text holds the difference from the length two before.
    """
    counts: list[int] = []
    value = place = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << place
        place += 5
        if not bits & 32:
            value -= (bits & 16) << (place - 4)
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = place = 0
    return counts


def _nothing(size: tuple[int, int]) -> bytes:
    """Run lengths of no pixel."""
    return bytes(mask.encode(np.zeros(size, dtype=np.uint8, order="F"))["counts"])
