"""Stage prepare_data: every source becomes one checked manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.sources import folder as folder_source
from pipeline.data.sources.source import Source
from tests.support.sources import (
    PREPARED,
    SPLIT_HEADER,
    folder,
    photo,
    photos,
    prepare,
    refusal,
    table,
)

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_outputs_have_the_same_bytes_every_time_and_with_any_number_of_workers() -> None:
    names = [f"{index}.png" for index in range(12)]
    photos(*names)
    table(*(f"{name},cat" for name in names))
    prepare(folder(), workers=0)
    first = {path.name: path.read_bytes() for path in PREPARED.iterdir() if path.is_file()}
    prepare(folder(), workers=3)
    assert {path.name: path.read_bytes() for path in PREPARED.iterdir() if path.is_file()} == first
    for drawn in ("scenes", "masks"):
        assert not any((PREPARED / drawn).iterdir()), "an output of the stage, empty where nothing is drawn"
    assert set(first) == {"manifest.csv", "test.csv", "classes.json", "ground_truth.json", "notes.json"}


def test_size_in_the_manifest_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 5)).save("photos/a.jpg", exif=exif)
    photos("b.jpg")
    table("a.jpg,cat,train", "b.jpg,cat,val", header=SPLIT_HEADER)
    assert prepare(folder()).records[0].size == (8, 5)


def test_data_without_anything_to_learn_are_refused() -> None:
    photos("a.jpg", "b.jpg")
    table("a.jpg,,train", "b.jpg,,val", header=SPLIT_HEADER)
    assert "there are no classes" in refusal(folder())
    table("a.jpg,,train", "b.jpg,cat,val", header=SPLIT_HEADER)
    assert "no train image has a tag" in refusal(folder())
    table("a.jpg,background,train", "b.jpg,cat,val", header=SPLIT_HEADER)
    assert "a class is named background" in refusal(folder())
    table(f"a.jpg,{'|'.join(map(str, range(255)))},train", "b.jpg,1,val", header=SPLIT_HEADER)
    assert "255 classes, but masks hold 254" in refusal(folder())


def test_images_are_all_checked() -> None:
    photo("big.png", size=(1001, 1000))
    noise = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save("photos/cut.jpg")
    Path("photos/cut.jpg").write_bytes(Path("photos/cut.jpg").read_bytes()[:1500])
    Path("photos/empty.jpg").write_bytes(b"")
    table("big.png,cat,train", "cut.jpg,cat,train", "empty.jpg,cat,val", header=SPLIT_HEADER)
    message = refusal(folder())
    assert "photos/big.png: 1001 x 1000 pixels" in message
    assert "photos/cut.jpg: cannot be decoded" in message and "photos/empty.jpg: the file is empty" in message


def test_long_lists_of_problems_are_cut() -> None:
    table(*(f"{index}.jpg,cat" for index in range(100)))
    message = refusal(folder())
    assert message.count("\n  - ") == 40 and message.endswith("... and 60 more")


def test_ids_are_unique(monkeypatch: pytest.MonkeyPatch) -> None:
    photos("a.jpg", "b.jpg")
    table("a.jpg,cat,train", "b.jpg,cat,val", header=SPLIT_HEADER)
    source = folder_source.read(folder(), 0)
    twice = Source(source.records * 2, source.classes)
    monkeypatch.setattr(folder_source, "read", lambda *_: twice)
    assert "two images have the id 'a'" in refusal(folder())
