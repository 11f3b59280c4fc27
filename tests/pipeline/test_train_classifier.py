"""What the classifier's stage says of its tags: one number, and the details that belong to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.cam.classifier import CamClassifier
from models.knobs import Augmentation
from pipeline.scoring.records import write_scores
from pipeline.train_classifier import tag_scores, write_no_classifier
from tests.support.project import Pixels, write_photographs
from tests.support.stages import here


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


def grey(number: int, size: tuple[int, int], _: np.random.Generator) -> Pixels:
    """A photograph of one colour."""
    return np.full((*size, 3), 90 * number, dtype=np.uint8)


def test_tags_of_the_validation_split_are_scored(tmp_path: Path) -> None:
    manifest = write_photographs(tmp_path, [("a",), ("a",), ()], [(24, 32)], val=2, paint=grey)
    network = CamClassifier("efficientnet_lite0", 2).eval()
    scores = tag_scores(network, manifest, Augmentation(long_side=[32, 32], crop=32), here()) | {
        "code": {"train_classifier": "0123456789abcdef"}
    }
    write_scores(Path("metrics"), "classifier", scores)
    numbers, details = written()
    assert numbers.keys() == {"map"} and numbers["map"] == details["per_class"]["a"]
    assert details.keys() == {"per_class", "classes_scored", "images", "protocol", "code"}
    assert (details["images"], details["classes_scored"]) == (2, 1)
    assert details["code"] == {"train_classifier": "0123456789abcdef"}
