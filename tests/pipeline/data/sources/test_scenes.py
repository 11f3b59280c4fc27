"""The bundled scenes as a source: the same bytes with any number of workers, tags that are true, chosen classes."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from pipeline.data.drawing.creatures import CLASSES
from pipeline.data.ground_truth import GroundTruth
from pipeline.data.manifest import Manifest
from pipeline.run import pool
from pipeline.run.errors import UserError
from tests.support.sources import PREPARED, configuration, prepare

pytestmark = pytest.mark.usefixtures("empty_folder")

SOURCE = {"train": 7, "val": 6, "size": 64, "seed": 0}


def test_same_bytes_with_any_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "ProcessPoolExecutor", ProcessPoolExecutor)

    def drawn(workers: int) -> dict[str, bytes]:
        manifest = prepare(configuration("scenes", SOURCE, root=None, limit=2), workers)
        assert [record.split for record in manifest.records] == ["train", "train", "val", "val"]
        files = (path for path in PREPARED.rglob("*") if path.is_file())
        return {str(path.relative_to(PREPARED)): path.read_bytes() for path in files}

    first = drawn(1)
    assert drawn(2) == first
    assert {"scenes/images/train_00000.png", "scenes/masks/val_00001.png", "manifest.csv"} <= first.keys()


def true_labels(manifest: Manifest) -> list[set[int]]:
    truth = GroundTruth(manifest, PREPARED / "scenes")
    return [set(np.unique(truth.read(record)).tolist()) - {0} for record in manifest.records]


def test_tags_are_what_the_masks_show() -> None:
    manifest = prepare(configuration("scenes", SOURCE, root=None))
    assert manifest.classes == CLASSES and len(manifest.records) == 13
    assert [set(manifest.class_ids(record)) for record in manifest.records] == true_labels(manifest)
    assert all((PREPARED / "scenes" / record.image).is_file() for record in manifest.records)
    assert set().union(*(record.tags for record in manifest.records[:7])) == set(CLASSES)


def test_chosen_classes_are_labelled_in_their_order() -> None:
    manifest = prepare(configuration("scenes", SOURCE, root=None, classes=["stag", "bear"]))
    assert manifest.classes == ("stag", "bear")
    assert [set(manifest.class_ids(record)) for record in manifest.records] == true_labels(manifest)
    assert {1, 2} <= set().union(*true_labels(manifest)) and any(not record.tags for record in manifest.records)


def test_classes_that_are_not_drawn_are_named() -> None:
    with pytest.raises(UserError, match="scenes draw no 'dragon'; they draw bear, elephant"):
        prepare(configuration("scenes", SOURCE | {"train": 1, "val": 1}, root=None, classes=["bear", "dragon"]))
