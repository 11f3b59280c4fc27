"""COCO's JSON, of which the categories alone are read: boxes, outlines, or neither may stand beside them.

A photograph without annotations shows none of the classes. (Outlines become masks with `data.name = coco2014`.)
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.data.sources.tags.rows import TagRow, TagTable, faults, merged, sorted_tags


class Image(BaseModel):
    """A photograph."""

    id: int | str
    file_name: str


class Category(BaseModel):
    """A class."""

    id: int | str
    name: str


class Annotation(BaseModel):
    """A class in a photograph."""

    image_id: int | str
    category_id: int | str


class Annotations(BaseModel):
    """The file, as far as it is read."""

    images: list[Image]
    categories: list[Category]
    annotations: list[Annotation] = []


def is_coco(content: Any) -> bool:
    """Whether JSON is meant to be COCO's."""
    return isinstance(content, dict) and {"images", "categories"} <= content.keys()


def coco_tags(path: Path, content: Any) -> TagTable:
    """The rows of a file in COCO's format.

    Args:
        path: for messages.
        content: what JSON gave.
    """
    try:
        file = Annotations.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return TagTable([], problems=[f"{path}: {where}: {first['msg']} ({error.error_count()} faults); mend it"])
    names = {category.id: category.name for category in file.categories}
    images = {image.id for image in file.images}
    tags: dict[int | str, set[str]] = defaultdict(set)
    notes: list[str] = []
    problems: list[str] = []
    for number, annotation in enumerate(file.annotations):
        for kind, key, known in (("image", annotation.image_id, images), ("category", annotation.category_id, names)):
            if key not in known:
                problems.append(f"{path}, annotations[{number}]: there is no {kind} {key!r}")
        tags[annotation.image_id].add(names.get(annotation.category_id, ""))
    rows = []
    for number, image in enumerate(file.images):
        row = TagRow(f"images[{number}]", image.file_name, sorted_tags(tags[image.id]))
        wrong = faults(row)
        problems += [f"{path}, {row.place}: {fault}" for fault in wrong]
        rows += [] if wrong else [row]
    return TagTable(merged(path, rows, notes, problems), notes, problems)
