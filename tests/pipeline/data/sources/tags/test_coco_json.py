"""COCO's JSON as tags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.data.sources.tags.coco_json import coco_tags, is_coco

FILE = Path("tags.json")


def content(*annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": "x/a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
        "categories": [{"id": 3, "name": "dog"}, {"id": 90, "name": "cat"}],
        "annotations": list(annotations),
    }


def test_boxes_or_categories_alone_are_tags() -> None:
    box = {"id": 1, "image_id": 7, "category_id": 90, "bbox": [0, 0, 5, 5]}
    found = coco_tags(FILE, content(box, {"image_id": 7, "category_id": 3}, box))
    assert is_coco(content()) and found.problems == []
    assert {row.image: row.tags for row in found.rows} == {"x/a.jpg": ("cat", "dog"), "b.jpg": ()}


def test_what_contradicts_itself_is_refused() -> None:
    problems = coco_tags(FILE, content({"image_id": 1, "category_id": 2})).problems
    assert problems == [
        "tags.json, annotations[0]: there is no image 1",
        "tags.json, annotations[0]: there is no category 2",
    ]
    assert (
        "images.0.file_name: Field required" in coco_tags(FILE, {"images": [{"id": 1}], "categories": []}).problems[0]
    )
