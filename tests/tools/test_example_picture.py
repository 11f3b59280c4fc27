"""The picture of a run, on two photographs and artefacts made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.manifest import PREPARED, Manifest, Record, load_manifest, save_manifest
from pipeline.data.masks import write_mask
from pipeline.maps.store import CamEntry, shard_path, write_shard
from pipeline.run.errors import UserError
from tests.support.stages import run_light, write_runtime
from tools import example_picture

SIZE = (48, 64)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in the current folder: one photograph to learn from, one held out."""
    monkeypatch.chdir(tmp_path)
    write_runtime(tmp_path)
    records = []
    for name, split, tags in (("a", "train", ("cat", "dog")), ("b", "val", ("cat",))):
        Image.new("RGB", SIZE[::-1], "teal").save(f"{name}.png")
        records.append(Record(name, split, f"{name}.png", SIZE[1], SIZE[0], tags))
    save_manifest(PREPARED, Manifest(tuple(records), ("cat", "dog")))
    weak_cat, strong_dog = torch.zeros(3, 4), torch.ones(3, 4)
    entry = CamEntry("a", SIZE, (1, 2), (torch.stack([weak_cat, strong_dog]),), (SIZE,))
    write_shard(shard_path(example_picture.SEEDS, 0), [entry], {})
    write_mask(example_picture.MASKS / "a.png", np.full(SIZE, 2, dtype=np.uint8))
    write_mask(example_picture.PREDICTIONS / "b.png", np.zeros(SIZE, dtype=np.uint8))


def draw(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Path:
    monkeypatch.setattr("sys.argv", ["example_picture", "out.png", *arguments])
    run_light(example_picture)
    return Path("out.png")


def test_one_row_shows_both_photographs(run: None, monkeypatch: pytest.MonkeyPatch) -> None:
    first = draw(monkeypatch, "--rows", "1", "--side", "64").read_bytes()
    with Image.open("out.png") as picture:
        assert picture.mode == "P" and picture.width > 5 * 64 and picture.height > 48
    assert draw(monkeypatch, "--train", "a", "--val", "b", "--side", "64").read_bytes() == first


def test_the_strongest_map_is_shown(run: None) -> None:
    manifest = load_manifest()
    tiles = example_picture.learned(np.zeros((*SIZE, 3), dtype=np.uint8), manifest.records[0], manifest)
    assert [text for _, text in tiles] == ["cat, dog", "dog", ""]


def test_a_photograph_that_is_not_there_is_named(run: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="in this split: b"):
        draw(monkeypatch, "--train", "b", "--val", "b")
