"""Segments of another tool vote: the label that prevails in a segment becomes that of all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline import make_masks
from pipeline.config.masks import MaskRules
from pipeline.data.manifest import Record
from pipeline.data.masks import read_mask, write_mask
from pipeline.data.outside import outside_files
from pipeline.maps.segments import vote, voted
from pipeline.run.errors import UserError
from tests.support.project import PHOTOGRAPHS, SIZE, configure, write_photographs
from tests.support.stages import run_light
from tests.support.store import write_store

LABELS = np.array([[1, 1, 2, 0], [1, 255, 255, 255], [2, 2, 0, 0]], dtype=np.uint8)
SEGMENTS = np.array([[300, 300, 300, 0], [0, 7, 7, 7], [2, 2, 2, 2]], dtype=np.uint16)
RECORD = Record("a", "train", "a.png", 4, 3, ())


def test_the_label_that_prevails_takes_the_segment() -> None:
    found = vote(LABELS, SEGMENTS, 0.5)
    expected = [[1, 1, 1, 0], [1, 255, 255, 255], [0, 0, 0, 0]]
    np.testing.assert_array_equal(found, expected, "ignored pixels do not vote; of equal counts the lower label wins")
    assert found.dtype == np.uint8


def test_a_segment_without_a_share_large_enough_stays() -> None:
    np.testing.assert_array_equal(vote(LABELS, SEGMENTS, 0.7), LABELS)
    np.testing.assert_array_equal(vote(LABELS, SEGMENTS, 0.6)[0], [1, 1, 1, 0])


def test_ignored_pixels_take_the_label_of_their_segment() -> None:
    np.testing.assert_array_equal(
        vote(np.array([[3, 3, 255]], dtype=np.uint8), np.ones((1, 3), np.uint16), 0.6), [[3] * 3]
    )


@pytest.mark.parametrize("numbers", [SEGMENTS, (SEGMENTS % 256).astype(np.uint8)])
def test_segments_are_read_from_grey_of_8_and_16_bits(tmp_path: Path, numbers: np.ndarray) -> None:
    Image.fromarray(numbers).save(tmp_path / "a.png")
    rules = MaskRules(segment_files=outside_files(str(tmp_path)))
    np.testing.assert_array_equal(voted(LABELS, RECORD, rules), vote(LABELS, numbers.astype(np.uint16), 0.5))
    assert voted(LABELS, RECORD, MaskRules()) is LABELS


def test_segments_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    rules = MaskRules(segment_files=outside_files(str(tmp_path)))
    with pytest.raises(UserError, match=r"masks\.segments = .*: no a\.png"):
        voted(LABELS, RECORD, rules)
    Image.fromarray(np.zeros((3, 5), dtype=np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"segments .*mask of 5x3"):
        voted(LABELS, RECORD, rules)
    Image.fromarray(np.zeros((3, 4, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"segments .*mode RGB"):
        voted(LABELS, RECORD, rules)


def test_masks_of_maps_follow_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_photographs(Path(), [("b",)])
    write_store(Path("data/refined"), seed=0)
    halves = np.ones(SIZE, dtype=np.uint16)
    halves[:, SIZE[1] // 2 :] = 500
    Path("segments").mkdir()
    Image.fromarray(halves).save("segments/0.png")
    knobs: dict[str, Any] = {"data__name": "folder", "data__root": PHOTOGRAPHS, "bg_thresh": 0.6, "masks__crf": "none"}
    configure(**knobs)
    run_light(make_masks)
    plain = read_mask(Path("data/masks/0.png"), SIZE)
    configure(**knobs, masks__segments="segments")
    run_light(make_masks)
    found = read_mask(Path("data/masks/0.png"), SIZE)
    np.testing.assert_array_equal(found, vote(plain, halves, 0.5))
    assert (found != plain).any() and all(len(np.unique(found[halves == number])) == 1 for number in (1, 500))
    write_mask(Path("segments/0.png"), np.ones(SIZE, dtype=np.uint8))
    with pytest.raises(UserError, match=r"masks\.segments = segments: the files have changed"):
        run_light(make_masks)
