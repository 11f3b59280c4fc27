"""mIoU of masks against the background threshold: the sample, and what each threshold gives."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline import evaluate, make_masks
from pipeline.config.masks import MaskRules
from pipeline.data.ground_truth import GroundTruth
from pipeline.data.manifest import Manifest, Record, load_manifest
from pipeline.data.masks import read_mask
from pipeline.scoring.mask_curve import PHOTOGRAPHS as MOST
from pipeline.scoring.mask_curve import THRESHOLDS, mask_curve, sample
from pipeline.scoring.scores import confusion_matrix, iou, mean
from tests.support.project import PHOTOGRAPHS, coarse, configure, write_masks, write_photographs
from tests.support.stages import run_light
from tests.support.store import write_store

STORE = Path("data/refined")


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """Photographs with refined maps, and masks that the maps know nothing of."""
    monkeypatch.chdir(tmp_path)
    manifest = write_photographs(Path(), paint=coarse)
    rng = np.random.default_rng(0)
    write_masks(Path(), manifest, lambda _, record: rng.integers(0, 3, record.size, dtype=np.uint8))
    write_store(STORE, 0)
    return manifest


def records(count: int) -> list[Record]:
    return [Record(str(number), "train", "", 4, 4, ()) for number in range(count)]


def test_sample_is_fixed_and_hardly_moved_by_others() -> None:
    many = records(200)
    first = sample(many)
    assert len(first) == MOST and first == sample(many[::-1])
    assert len(set(first) & set(sample(many[:190]))) >= MOST - 10
    assert sorted(sample(many[:5]), key=many.index) == many[:5]


def test_every_point_is_that_of_the_masks_made_at_its_threshold(manifest: Manifest) -> None:
    truth, rules = GroundTruth(manifest, Path(PHOTOGRAPHS)), MaskRules(crf_reference=500)
    found = mask_curve(STORE, truth, manifest.records, rules, 1)
    assert found["images"] == len(manifest.records) and found["thresholds"] == list(THRESHOLDS)
    configure(bg_thresh=0.4, data__name="folder", data__root=PHOTOGRAPHS)
    run_light(make_masks)
    total = sum(
        confusion_matrix(truth.read(record), read_mask(Path(f"data/masks/{record.id}.png"), record.size), 3)
        for record in manifest.records
    )
    assert found["miou"][THRESHOLDS.index(0.4)] == pytest.approx(mean(iou(np.asarray(total))), abs=1e-3)
    best = found["best"]
    assert best["miou"] == max(found["miou"]) == found["miou"][THRESHOLDS.index(best["threshold"])]
    assert best["chosen_with"] == "the masks that it is scored on"


def test_void_masks_have_no_curve(manifest: Manifest) -> None:
    write_masks(Path(), manifest, lambda _, record: np.full(record.size, 255, dtype=np.uint8))
    truth = GroundTruth(manifest, Path(PHOTOGRAPHS))
    assert mask_curve(STORE, truth, manifest.records, MaskRules(), 1) == {}


@pytest.mark.parametrize("crf", ["irn", "none"])
def test_refined_maps_alone_have_one_and_only_with_a_crf(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, crf: str
) -> None:
    write_store(Path("data/seeds"), 0)
    configure(bg_thresh=0.3, data__name="folder", data__root=PHOTOGRAPHS, masks__crf=crf)
    for artefact in ("seeds", "refined"):
        monkeypatch.setattr("sys.argv", ["evaluate", artefact])
        run_light(evaluate)
    assert "mask_curve" not in json.loads(Path("metrics/details/seeds.json").read_text())
    found = json.loads(Path("metrics/details/refined.json").read_text()).get("mask_curve")
    table = Path("metrics/plots/refined/mask_curve.csv")
    if crf == "none":
        assert found is None and not table.exists()
    else:
        assert found["images"] == len(load_manifest().records) and not any(map(math.isnan, found["miou"]))
        assert pd.read_csv(table)["miou"].tolist() == pytest.approx(found["miou"], rel=1e-5)
        assert table.with_suffix(".png").exists()
