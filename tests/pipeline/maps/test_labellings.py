"""Labels at several background thresholds, through the CRF."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from pipeline.config.masks import MaskRules
from pipeline.maps.labellings import channels_at, labels_at
from pipeline.maps.store import store_index
from tests.support.project import PHOTOGRAPHS, coarse, write_photographs
from tests.support.store import write_store


@pytest.mark.parametrize("unary", ["labels", "softmax"])
def test_crf_follows_the_picture(unary: Literal["labels", "softmax"]) -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, 20:] = 255
    maps = np.zeros((1, 40, 40), np.float32)
    maps[0, :, 16:] = 0.9  # four columns too wide
    (channels,) = channels_at(image, maps, None, [0.4], MaskRules(crf="irn", crf_unary=unary))
    np.testing.assert_array_equal(channels, (image[..., 0] > 0).astype(np.uint8))


def test_several_thresholds_give_what_each_gives_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = write_photographs(Path(), [("a", "b"), ()], [(60, 80)], paint=coarse)
    write_store(Path("data/refined"), 0)
    index, thresholds = store_index(Path("data/refined")), (0.2, 0.5, 0.8)
    rules = MaskRules(max_side=64, crf_reference=500)
    for record in manifest.records:
        shard = index[record.id]
        together = labels_at(shard, record, thresholds, rules, Path(PHOTOGRAPHS))
        for threshold, labels in zip(thresholds, together, strict=True):
            (alone,) = labels_at(shard, record, [threshold], rules, Path(PHOTOGRAPHS))
            assert labels.shape == record.size
            assert np.mean(labels == alone) > 0.999
        assert any(labels.any() for labels in together) == bool(record.tags)
