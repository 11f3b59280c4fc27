"""Masks to check first: the signs, and the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.masks import write_mask
from pipeline.maps.store import CamEntry, shard_path, write_shard
from pipeline.scoring.check_first import differing, doubts, ranking, save_ranking, signs_of, soft_iou
from tests.support.project import write_photographs

LEFT = np.array([[1.0, 1.0, 0.0, 0.0]] * 2, dtype=np.float32)


def stack(*maps: np.ndarray) -> np.ndarray:
    return np.stack([np.full_like(LEFT, 0.3), *maps])


def test_soft_iou_is_that_of_regions_and_falls_with_the_map() -> None:
    assert soft_iou(LEFT > 0, LEFT) == 1 and soft_iou(LEFT == 0, LEFT) == 0
    assert soft_iou(LEFT > 0, LEFT * np.float32(0.5)) == pytest.approx(0.5)
    assert soft_iou(LEFT > 1, LEFT * 0) == 0


def test_the_tag_that_is_farthest_from_its_map_counts() -> None:
    mask = (LEFT * 3).astype(np.uint8)
    good = signs_of(mask, stack(LEFT), [3])
    assert good == {"map_differs": 0.0, "unsure": pytest.approx(0.5)}
    assert signs_of(mask, stack(LEFT, 1 - LEFT), [3, 5])["map_differs"] == 1, "a mask without one of the tags"


def test_unsure_is_how_close_the_two_strongest_channels_are() -> None:
    mask = LEFT.astype(np.uint8)
    assert signs_of(mask, stack(np.full_like(LEFT, 0.3)), [1])["unsure"] == 1
    assert signs_of(mask, stack(LEFT * 0.9), [1])["unsure"] == pytest.approx(1 - (0.6 + 0.3) / 2)


def test_predictions_differ_on_what_either_shows() -> None:
    mask, other = np.array([[1, 1, 0, 255]], np.uint8), np.array([[1, 2, 0, 1]], np.uint8)
    assert differing(mask, other) == 0.5 and differing(mask * 0, other * 0) is None
    assert signs_of(mask, np.zeros((1, 1, 4), np.float32), [], other) == {"prediction_differs": 0.5}


def test_the_most_doubtful_mask_stands_first(tmp_path: Path) -> None:
    manifest = write_photographs(tmp_path, [("a",), ("a", "b"), ()], [(2, 4)])
    maps = torch.from_numpy(np.stack([LEFT, 1 - LEFT]))
    entries = [
        CamEntry(r.id, (2, 4), tuple(range(1, 1 + len(r.tags))), (maps[: len(r.tags)],), ((2, 4),), fusion="scores")
        for r in manifest.records
    ]
    write_shard(shard_path(tmp_path / "refined", 0), entries, {})
    for record in manifest.records:
        write_mask(tmp_path / f"masks/{record.id}.png", LEFT.astype(np.uint8))
        write_mask(tmp_path / f"predictions/{record.id}.png", LEFT.astype(np.uint8))
    table = ranking(doubts(tmp_path / "refined", tmp_path / "masks", manifest, 0.3))
    assert table["id"].tolist() == ["1", "0", "2"] and table["tags_missing"].tolist() == ["b", "", ""]
    assert "prediction_differs" not in table and table["doubt"].tolist()[-1] == 0
    save_ranking(tmp_path / "t.csv", table)
    assert (tmp_path / "t.csv").read_text().startswith("id,doubt,tags_missing,map_differs,unsure\n1,")
    with_predictions = ranking(
        doubts(tmp_path / "refined", tmp_path / "masks", manifest, 0.3, tmp_path / "predictions")
    )
    assert (with_predictions["prediction_differs"] == 0).all()
