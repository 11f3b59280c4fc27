"""What the classifier's stage says of its tags: one number, and the details that belong to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.cam.classifier import CamClassifier
from pipeline.data.manifest import Manifest, Record
from pipeline.scoring.records import write_scores
from pipeline.train_classifier import tag_scores, write_no_classifier
from tests.support.tiny_training import write_runtime


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written() -> tuple[dict[str, Any], dict[str, Any]]:
    """The number and the details."""
    numbers, details = (Path(f"metrics/{name}classifier.json").read_text() for name in ("", "details/"))
    return json.loads(numbers), json.loads(details)


def test_without_a_classifier_no_tag_is_scored() -> None:
    write_no_classifier("0123456789abcdef")
    numbers, details = written()
    assert numbers == {}
    assert details["code"] == {"train_classifier": "0123456789abcdef"} and details["protocol"] == {"network": "none"}


def test_tags_of_the_validation_split_are_scored(tmp_path: Path) -> None:
    write_runtime(tmp_path, root=".")
    records = []
    for number, split in enumerate(("train", "val", "val")):
        colour = np.full((24, 32, 3), 90 * number, dtype=np.uint8)
        Image.fromarray(colour).save(f"{number}.png")
        records.append(Record(str(number), split, f"{number}.png", 32, 24, ("a",) if number < 2 else ()))
    network = CamClassifier("efficientnet_lite0", 2).eval()
    manifest = Manifest(tuple(records), ("a", "b"))
    write_scores(Path("metrics"), "classifier", tag_scores(network, manifest, 32.0, "0123456789abcdef"))
    numbers, details = written()
    assert numbers.keys() == {"map"} and numbers["map"] == details["per_class"]["a"]
    assert details.keys() == {"per_class", "classes_scored", "images", "protocol", "code"}
    assert (details["images"], details["classes_scored"]) == (2, 1)
    assert details["code"] == {"train_classifier": "0123456789abcdef"}
