"""Evaluation of awkward ground truth: black, void, of another size, with foreign labels."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import evaluate as evaluate_stage
from pipeline.data.manifest import PREPARED, load_manifest, save_ground_truth, save_manifest
from pipeline.data.masks import write_mask
from pipeline.evaluate import EvaluateConfig, evaluate
from pipeline.maps.store import CamEntry, read_store, shard_path, write_shard
from pipeline.run.errors import UserError
from pipeline.run.files import write_json
from pipeline.scoring.counts import load_counts
from pipeline.scoring.scores import summary
from tests.support.project import PHOTOGRAPHS, write_photographs
from tests.support.stages import run_light

CODE = {"extract_cams": "0123456789abcdef", "evaluate": "fedcba9876543210"}
CONFIG = EvaluateConfig(bg_thresh=0.3, protocol={"method": "cam", "crf": None}, code=CODE)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two photographs of classes a and b with seeds, and masks that each test writes."""
    monkeypatch.chdir(tmp_path)
    manifest = write_photographs(tmp_path, [("a",), ("a",)], [(4, 6)])
    save_ground_truth(PREPARED, {"0": "zero.png", "1": "one.png"}, None)
    maps = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    entries = [CamEntry(record.id, (4, 6), (1,), (maps,), ((4, 6),)) for record in manifest.records]
    write_shard(shard_path(Path("data/seeds"), 0), entries, {})
    return tmp_path


def scores(project: Path, *masks: np.ndarray) -> dict[str, Any]:
    """Evaluate the seeds against two masks; also proves that the numbers are JSON."""
    for name, labels in zip(("zero", "one"), masks, strict=True):
        write_mask(project / PHOTOGRAPHS / f"{name}.png", labels.astype(np.uint8))
    found = evaluate("seeds", load_manifest(), CONFIG, project / PHOTOGRAPHS, project / "plots")
    json.dumps(found, allow_nan=False)
    return found


def test_plain_truth(project: Path) -> None:
    found = scores(project, half_true(), half_true())
    assert found["images"] == 2 and 0.5 < found["miou"] <= 1 and found["per_class"].keys() == {"background", "a"}
    assert found["oracle"]["miou"] >= found["miou"]
    assert found["coverage"]["tags_shown"] == 1


def test_coverage_stands_beside_the_true_share_of_foreground(project: Path) -> None:
    quarter = half_true()
    quarter[2:] = 0
    quarter[:2, 3:] = 255
    found = scores(project, half_true(), quarter)["coverage"]
    assert found["true_foreground"] == pytest.approx((12 / 24 + 6 / 18) / 2), "void left out, mean of photographs"
    mark_tune("1")
    both = scores(project, half_true(), quarter)["coverage"]
    assert both == found, "coverage is of all photographs, those to choose on too"


def half_true() -> np.ndarray:
    truth = np.zeros((4, 6))
    truth[:, :3] = 1
    return truth


def run_stage_main(monkeypatch: pytest.MonkeyPatch, artefact: str) -> None:
    """Run the stage as its command line does."""
    write_json(Path(f"data/config/evaluate_{artefact}.json"), CONFIG.model_dump(mode="json"))
    monkeypatch.setattr("sys.argv", ["evaluate", artefact])
    run_light(evaluate_stage)


@pytest.mark.parametrize("masks", [True, False])
def test_numbers_go_to_metrics_and_all_else_to_details(
    project: Path, monkeypatch: pytest.MonkeyPatch, masks: bool
) -> None:
    found = scores(project, half_true(), half_true())
    if not masks:
        save_ground_truth(PREPARED, {}, None)
        for name in ("true_foreground", "foreground_where_known"):
            found["coverage"].pop(name)
    run_stage_main(monkeypatch, "seeds")
    numbers = json.loads(Path("metrics/seeds.json").read_text())
    details = json.loads(Path("metrics/details/seeds.json").read_text())
    shown = {"miou", "foreground_miou", "precision", "recall", "over_activation", "oracle"}
    assert set(numbers) == (shown if masks else set()), "no other number, and none that was not measured"
    assert all(isinstance(number, float) for number in numbers.values())
    scored = {"per_class", "classes_scored", "fpr", "fnr", "no_threshold", "oracle", "by_size", "calibration"}
    assert details.keys() == {"images", "coverage", "protocol", "code"} | (scored if masks else set())
    assert details["code"] == CODE and details["coverage"] == found["coverage"]
    assert details["protocol"]["masks_given"] is masks and details["images"] == 2 * masks
    if masks:
        assert numbers["oracle"] == found["oracle"]["miou"] and numbers["miou"] == found["miou"]
        assert {"threshold", "chosen_with", "foreground_miou"} == details["oracle"].keys()


def mark_tune(*names: str) -> None:
    """Set photographs apart as those to choose on."""
    save_ground_truth(PREPARED, {"0": "zero.png", "1": "one.png"}, None, tune=names)


def test_tune_photographs_choose_and_are_not_reported(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        CamEntry("0", (4, 6), (1,), (torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]),), ((4, 6),)),
        CamEntry("1", (4, 6), (1,), (torch.tensor([[[1.0, 0.7], [1.0, 0.2]]]),), ((4, 6),)),
    ]
    write_shard(shard_path(Path("data/seeds"), 0), entries, {})
    alone = scores(project, half_true(), np.full((4, 6), 255))
    whole = scores(project, half_true(), half_true())
    mark_tune("1")
    found = scores(project, half_true(), half_true())
    assert found["images"] == 1 and found["miou"] == alone["miou"] != whole["miou"]
    assert found["per_class"] == alone["per_class"] and found["by_size"] == alone["by_size"]
    assert found["tune"]["images"] == 1
    run_stage_main(monkeypatch, "seeds")
    mark_tune("0")
    swapped = scores(project, half_true(), half_true())
    assert swapped["tune"]["miou"] == alone["miou"] and found["tune"]["miou"] == swapped["miou"]
    assert found["tune"]["threshold"] == swapped["oracle"]["threshold"]
    numbers = json.loads(Path("metrics/seeds.json").read_text())
    assert numbers["tuned"] == found["tune"]["at_tuned"] <= found["oracle"]["miou"] == numbers["oracle"]


def test_counts_of_photographs_sum_up_to_what_is_reported(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark_tune("1")
    for number in ("0", "1"):
        write_mask(Path(f"data/masks/{number}.png"), half_true().astype(np.uint8))
    found = scores(project, half_true(), 1 - half_true())
    for artefact in ("seeds", "masks"):
        run_stage_main(monkeypatch, artefact)
        counts = load_counts(Path(f"data/counts/{artefact}.npz"))
        numbers = json.loads(Path(f"metrics/{artefact}.json").read_text())
        assert counts.ids == ["0"]
        assert summary(counts.total(3), ["a", "b"])["miou"] == numbers["miou"]
    details = json.loads(Path("metrics/details/masks.json").read_text())
    assert details["boundary_miou"] == 1 and details["by_size"] == {"large": {"foreground_miou": 1.0, "pairs": 1}}
    assert details["tune"]["images"] == 1 and "at_tuned" not in details["tune"] and "calibration" not in details
    assert "boundary_miou" not in found and 0 < found["calibration"]["ece"] < 1
    assert (project / "plots/calibration.csv").exists()


def test_maps_of_validation_photographs_are_a_block_of_their_own(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = scores(project, half_true(), half_true())
    manifest = load_manifest()
    save_manifest(PREPARED, replace(manifest, records=(manifest.records[0], replace(manifest.records[1], split="val"))))
    entries = list(read_store(Path("data/seeds")))
    write_shard(shard_path(Path("data/seeds"), 0), entries[:1], {})
    write_shard(shard_path(Path("data/validation/seeds"), 0), entries[1:], {})
    run_stage_main(monkeypatch, "seeds")
    details = json.loads(Path("metrics/details/seeds.json").read_text())
    assert details["val"]["images"] == 1 and details["val"]["miou"] == plain["miou"]
    assert details["val"]["uses"] == "image tags of the validation photographs"
    assert "earlier" not in details and details["images"] == 1


def test_photographs_set_apart_are_no_reason_to_say_that_no_masks_were_given(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_ground_truth(PREPARED, {"0": "zero.png"}, None, tune=["0"])
    found = scores(project, half_true(), half_true())
    assert found["images"] == 0 and found["protocol"]["masks_given"] and "tune" not in found
    assert "all 1 photographs with a mask are among those that data.tune sets apart" in capsys.readouterr().out


def test_predictions_are_of_the_validation_photographs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = load_manifest()
    records = tuple(replace(record, split="val") for record in manifest.records)
    save_manifest(PREPARED, replace(manifest, records=records))
    for record in records:
        write_mask(Path(f"data/predictions/{record.id}.png"), half_true().astype(np.uint8))
    scores(project, half_true(), half_true())
    run_stage_main(monkeypatch, "segmenter")
    details = json.loads(Path("metrics/details/segmenter.json").read_text())
    assert details["images"] == 2
    assert "tune" not in details and details["boundary_miou"] == 1


@pytest.mark.parametrize(("artefact", "key"), [("rules", "rules"), ("localizer", "epochs")])
def test_rules_and_epochs_have_details_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch, artefact: str, key: str
) -> None:
    found = scores(project, half_true(), half_true())
    shutil.copytree("data/seeds", "data/rules/none")
    shutil.copytree("data/seeds", "data/localizer/epochs/online-01")
    write_json(Path("data/localizer/history.json"), [{"epoch": 1, "loss": 0.7}, {"epoch": 2, "loss": 0.5}])
    run_stage_main(monkeypatch, artefact)
    assert not Path(f"metrics/{artefact}.json").exists()
    assert load_counts(Path(f"data/counts/{artefact}.npz")).ids == []
    details = json.loads(Path(f"metrics/details/{artefact}.json").read_text())
    others = {"training"} if artefact == "localizer" else set()
    assert details.keys() == {key, "protocol", "code", *others} and details["code"] == CODE
    assert details.get("training") == ({"epoch": 2, "loss": 0.5} if others else None)
    scored = details["rules"]["none"]["miou"] if key == "rules" else details["epochs"]["online"]["miou"][0]
    assert scored == (found["miou"] if key == "rules" else found["no_threshold"]["miou"])


def test_earlier_maps_are_scored_beside_the_seeds(project: Path) -> None:
    plain = scores(project, half_true(), half_true())
    assert "earlier" not in plain
    shutil.copytree("data/seeds", "data/other")
    Path("data/other").rename("data/seeds/baseline")
    found = scores(project, half_true(), half_true())
    assert {name: found["earlier"]["baseline"][name] for name in ("miou", "precision", "recall")} == {
        name: plain[name] for name in ("miou", "precision", "recall")
    }
    assert {name: value for name, value in found.items() if name != "earlier"} == plain


def test_black_truth_is_said_and_gives_no_nan(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = scores(project, np.zeros((4, 6)), np.zeros((4, 6)))
    assert "shows no class" in capsys.readouterr().out
    assert found["per_class"]["a"] == 0 and "recall" not in found


def test_void_truth_gives_no_nan(project: Path) -> None:
    found = scores(project, np.full((4, 6), 255), np.full((4, 6), 255))
    assert found["classes_scored"] == 0 and "miou" not in found and "oracle" not in found


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((5, 6)), "6x5 for a photograph of 6x4"),
        (np.full((4, 6), 3), "label 3 in the mask is that of no class"),
    ],
)
def test_masks_that_do_not_fit_are_named(project: Path, mask: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        scores(project, mask, mask)
    assert "zero.png" in str(caught.value)


def test_background_is_left_out_of_every_score_where_there_is_none(project: Path) -> None:
    truth = np.where(half_true() == 1, 1, 2)
    truth[0, 0] = 0
    save_ground_truth(PREPARED, {"0": "zero.png", "1": "one.png"}, None, background=False)
    save_manifest(PREPARED, replace(load_manifest(), classes=("a", "b")))
    config = CONFIG.model_copy(update={"bg_thresh": "nowhere"})
    for name in ("zero", "one"):
        write_mask(project / PHOTOGRAPHS / f"{name}.png", truth.astype(np.uint8))
    found = evaluate("seeds", load_manifest(), config, project / PHOTOGRAPHS, project / "plots")
    assert found["per_class"].keys() == {"a", "b"} and found["classes_scored"] == 2
    assert found["per_class"]["a"] == pytest.approx(11 / 23), "the pixel of label 0 is void, the tag wins everywhere"
    assert found["miou"] == found["foreground_miou"] == pytest.approx(11 / 23 / 2)
    assert not {"oracle", "no_threshold", "calibration"} & found.keys()
    assert found["protocol"]["background"].startswith("none") and found["protocol"]["bg_thresh_used"] == "nowhere"


def test_true_masks_that_hold_no_background_hint_at_the_knob(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("zero", "one"):
        write_mask(project / PHOTOGRAPHS / f"{name}.png", np.ones((4, 6), dtype=np.uint8))
        write_mask(Path(f"data/masks/{int(name == 'one')}.png"), half_true().astype(np.uint8))
    found = evaluate("masks", load_manifest(), CONFIG, project / PHOTOGRAPHS, project / "plots")
    assert "-S +data.background=false" in found["warnings"][0] and "WARNING: the true masks" in capsys.readouterr().out
