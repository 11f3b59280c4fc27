"""Ground-truth masks that are no label images: read by a reader of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.data import ground_truth
from pipeline.data.ground_truth import GroundTruth, MaskFiles
from pipeline.data.manifest import PREPARED, Manifest, Record, save_ground_truth
from pipeline.data.masks import write_mask
from pipeline.run.errors import UserError
from pipeline.run.files import read_json

RECORD = Record("one", "train", "one.png", 6, 4, ("cat",))
MANIFEST = Manifest((RECORD,), ("cat", "dog"))


def boxes_of(path: Path, record: Record) -> ground_truth.Labels:
    """Boxes of one annotation file for all photographs: label, top, bottom, left, right."""
    labels = np.zeros(record.size, dtype=np.uint8)
    for label, top, bottom, left, right in json.loads(path.read_text())[record.id]:
        labels[top:bottom, left:right] = label
    return labels


def test_masks_come_by_the_reader_that_the_source_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(ground_truth.READERS, "boxes", MaskFiles(boxes_of))
    Path("annotations.json").write_text(json.dumps({"one": [[7, 0, 2, 0, 3], [9, 2, 4, 3, 6]]}))
    label_map = [1 if label == 7 else 2 if label == 9 else 0 for label in range(256)]
    save_ground_truth(PREPARED, {"one": "annotations.json"}, label_map, "boxes")
    mask = GroundTruth(MANIFEST, tmp_path).read(RECORD)
    assert mask.shape == (4, 6) and (mask == 1).sum() == 6 and (mask == 2).sum() == 6 and mask[3, 5] == 2


def test_png_masks_are_described_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_ground_truth(PREPARED, {"one": "one.png"}, None)
    described: dict[str, object] = {"label_map": None, "masks": {"one": "one.png"}, "tune": [], "sha256": {}}
    assert read_json(PREPARED / "ground_truth.json", "prepare_data") == described
    write_mask(tmp_path / "one.png", np.full((4, 6), 2, dtype=np.uint8))
    assert (GroundTruth(MANIFEST, tmp_path).read(RECORD) == 2).all()


def test_a_reader_s_labels_are_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(ground_truth.READERS, "boxes", MaskFiles(boxes_of))
    Path("annotations.json").write_text(json.dumps({"one": [[3, 0, 1, 0, 1]]}))
    save_ground_truth(PREPARED, {"one": "annotations.json"}, None, "boxes")
    with pytest.raises(UserError, match="label 3 in the mask is that of no class"):
        GroundTruth(MANIFEST, tmp_path).read(RECORD)
