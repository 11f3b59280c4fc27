"""Stage make_masks: the ignored region, and full supervision."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import make_masks
from pipeline.data.ground_truth import GroundTruth
from pipeline.data.manifest import PREPARED, Manifest, load_manifest, save_ground_truth, save_manifest
from pipeline.data.masks import read_mask
from pipeline.maps.store import CamEntry, shard_path, write_shard
from pipeline.run.errors import UserError
from tests.support.processes import forked
from tests.support.project import PHOTOGRAPHS, SIZE, configure, write_masks, write_photographs
from tests.support.stages import InlinePool, run_light
from tests.support.store import write_store

FOLDER: dict[str, Any] = {"data__name": "folder", "data__root": PHOTOGRAPHS}
SUPERVISED = FOLDER | {"data__folder__masks": ".", "method": "supervised"}


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """Three photographs, the last of which is for validation."""
    monkeypatch.chdir(tmp_path)
    return write_photographs(Path(), [("a",), ("b",), ("a",)], val=1)


def masks() -> dict[str, np.ndarray]:
    return {path.stem: read_mask(path, SIZE) for path in Path("data/masks").iterdir()}


def test_confidence_pair_truth_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (record,) = write_photographs(Path(), [("b",)], [(1, 3)]).records
    maps = torch.tensor([[[0.9, 0.2, 0.01]]])
    write_shard(shard_path(Path("data/refined"), 0), [CamEntry(record.id, (1, 3), (2,), (maps,), ((1, 3),))], {})
    for pair, expected in (([0.5, 0.1], [[2, 255, 0]]), ("none", [[2, 0, 0]])):
        configure(**FOLDER, bg_thresh=0.3, masks__crf="none", masks__confidence_pair=pair)
        run_light(make_masks)
        np.testing.assert_array_equal(read_mask(Path("data/masks/0.png"), (1, 3)), expected)


@pytest.mark.parametrize(("pair", "middle"), [("none", [2, 1, 1]), ([0.5, 0.1], [2, 255, 255])])
@pytest.mark.parametrize("crf", ["none", "irn"])
def test_without_background_the_strongest_class_wins_or_a_pixel_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: Any, middle: list[int], crf: str
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = write_photographs(Path(), [("a", "b"), ()], [(1, 3)]).records
    maps = torch.tensor([[[0.1, 0.2, 0.0]], [[0.9, 0.1, 0.0]]])
    entry = CamEntry(first.id, (1, 3), (1, 2), (maps,), ((1, 3),), fusion="scores")
    empty = CamEntry(second.id, (1, 3), (), (maps[:0],), ((1, 3),))
    write_shard(shard_path(Path("data/refined"), 0), [entry, empty], {})
    configure(**FOLDER, data__background=False, masks__crf=crf, masks__confidence_pair=pair)
    run_light(make_masks)
    mask = read_mask(Path("data/masks/0.png"), (1, 3))
    if crf == "none":
        np.testing.assert_array_equal(mask, [middle])
    assert 0 not in mask and (read_mask(Path("data/masks/1.png"), (1, 3)) == 255).all()


def test_full_supervision_takes_the_true_masks_and_reads_no_map(manifest: Manifest) -> None:
    rng = np.random.default_rng(0)
    known = replace(manifest, records=manifest.records[::2])
    write_masks(Path(), known, lambda _, record: rng.choice([0, 1, 2, 255], record.size).astype(np.uint8))
    params = configure(**SUPERVISED)
    assert params.masks.source == "truth" and not Path("data/refined").exists() and not Path("data/background").exists()
    run_light(make_masks)
    found = masks()
    assert found.keys() == {"0", "1"}, "of the training photographs"
    np.testing.assert_array_equal(found["0"], GroundTruth(manifest, Path(PHOTOGRAPHS)).read(manifest.records[0]))
    assert (found["1"] == 255).all(), "a photograph without a mask teaches nothing"


def test_true_masks_are_in_the_labels_of_the_chosen_classes(manifest: Manifest) -> None:
    write_masks(Path(), manifest, lambda _, record: np.full(record.size, 2, dtype=np.uint8))
    names = {record.id: f"{number}-mask.png" for number, record in enumerate(manifest.records)}
    save_ground_truth(PREPARED, names, [0, 0, 1, *range(3, 256)])
    save_manifest(PREPARED, Manifest(load_manifest().records, ("b",)))
    configure(**SUPERVISED)
    run_light(make_masks)
    assert all((labels == 1).all() for labels in masks().values())


def test_full_supervision_needs_a_mask(manifest: Manifest) -> None:
    write_masks(Path(), manifest.split("val"), lambda _, record: np.ones(record.size, dtype=np.uint8))
    configure(**SUPERVISED)
    with pytest.raises(UserError, match="none of the 2 training photographs has one"):
        run_light(make_masks)
    assert not Path("data/masks").exists()


def test_killed_masks_go_on_where_they_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.run.pool.ProcessPoolExecutor", InlinePool)
    write_photographs(Path(), [("a",), ("b",), ("a",)])
    write_store(Path("data/refined"), 0)
    configure(**FOLDER, bg_thresh=0.3, masks__crf="none")
    run_light(make_masks)
    whole = {path.name: path.read_bytes() for path in Path("data/masks").iterdir()}
    shutil.rmtree(".resume")
    write, written = make_masks.write_mask, list[str]()

    def note_and_die(path: Path, labels: np.ndarray) -> None:
        if len(written) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        written.append(path.stem)
        write(path, labels)

    monkeypatch.setattr(make_masks, "write_mask", note_and_die)
    assert forked(lambda: run_light(make_masks)).status == -signal.SIGKILL
    run_light(make_masks)
    assert written == ["2"], "the last one, after the two of the killed run"
    assert {path.name: path.read_bytes() for path in Path("data/masks").iterdir()} == whole


def test_validation_photographs_get_masks_where_they_have_maps(manifest: Manifest) -> None:
    write_store(Path("data/refined"), 0)
    held_out = make_masks.OUTPUT["val"]
    configure(**FOLDER, bg_thresh=0.3, masks__crf="none")
    run_light(make_masks)
    alone = masks()
    assert alone.keys() == {"0", "1"} and not any(held_out.iterdir())
    write_store(make_masks.INPUT["val"], 1)
    run_light(make_masks)
    assert [path.name for path in held_out.iterdir()] == ["2.png"]
    assert set(np.unique(read_mask(held_out / "2.png", SIZE))) == {0, 1}
    for name, labels in masks().items():
        np.testing.assert_array_equal(labels, alone[name])


def test_missing_maps_of_training_photographs_are_an_error(manifest: Manifest) -> None:
    Path("data/refined").mkdir(parents=True)
    configure(**FOLDER, bg_thresh=0.3, masks__crf="none")
    with pytest.raises(UserError, match="data/refined"):
        run_light(make_masks)
