"""The photographs to choose on: drawn by their id alone, reported nowhere, or the validation split."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.load import resolve
from pipeline.data.ground_truth import GroundTruth
from pipeline.data.manifest import Manifest, Record
from pipeline.data.tune import drawn, set_apart, validated_on_tune
from pipeline.run.errors import UserError
from tests.support.knobs import shipped
from tests.support.sources import SPLIT_HEADER, folder, ground_truth, photos, prepare, refusal, table

RECORDS = [Record(f"p{number}", "val" if number % 4 == 0 else "train", "", 1, 1, ("a",)) for number in range(400)]


def ids(records: tuple[Record, ...] | list[Record]) -> set[str]:
    return {record.id for record in records}


def test_share_is_drawn_by_id_and_only_of_training_photographs() -> None:
    some = set(set_apart(RECORDS, 0.2))
    assert some <= {record.id for record in RECORDS if record.split == "train"} and 40 <= len(some) <= 80
    assert set(set_apart(RECORDS[::3], 0.2)) == some & ids(RECORDS[::3]), "other photographs change nothing"
    assert some <= {name for name in ids(RECORDS) if drawn(name, 0.3)}, "a larger share holds a smaller one"
    assert not set_apart(RECORDS, 0.0)


def test_tune_photographs_validate_and_leave_the_training() -> None:
    tune = set(set_apart(RECORDS, 0.2))
    manifest = Manifest(tuple(validated_on_tune(RECORDS, 0.2)), ("a",))
    assert ids(manifest.split("val").records) == tune
    training = [record.id for record in RECORDS if record.split == "train" and record.id not in tune]
    assert [record.id for record in manifest.split("train").records] == training


@pytest.mark.usefixtures("empty_folder")
def test_stage_sets_photographs_apart_and_says_what_validates(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{number}.png" for number in range(20)]
    photos(*names)
    table(*(f"{name},cat,{'val' if number < 4 else 'train'}" for number, name in enumerate(names)), header=SPLIT_HEADER)
    manifest = prepare(folder(tune=0.4))
    assert "4 val images" in capsys.readouterr().out
    assert prepare(folder()) == manifest, "the share is nothing that a training reads"
    prepare(folder(tune=0.4))
    truth, train = GroundTruth(manifest, Path("photos")), manifest.split("train")
    tune, reported = ids(truth.to_choose_on(manifest).records), ids(truth.reported(train).records)
    assert tune and not tune & reported and tune | reported == ids(train.records)
    capsys.readouterr()
    manifest = prepare(folder(tune=0.4, validate_on="tune"))
    assert ids(manifest.split("val").records) == tune and f"{len(tune)} tune images" in capsys.readouterr().out
    assert not ground_truth()["tune"], "those that validate are reported"


@pytest.mark.usefixtures("empty_folder")
def test_tune_photographs_validate_where_the_table_has_no_validation() -> None:
    names = [f"{number}.png" for number in range(20)]
    photos(*names)
    table(*(f"{name},cat,train" for name in names), header=SPLIT_HEADER)
    assert prepare(folder(tune=0.4, validate_on="tune")).split("val").records


@pytest.mark.usefixtures("empty_folder")
def test_too_small_a_share_to_validate_on_is_said() -> None:
    photos("a.png", "b.png")
    table("a.png,cat,train", "b.png,cat,val", header=SPLIT_HEADER)
    message = refusal(folder(tune=0.000001, validate_on="tune"))
    assert "no image is in the split val" in message and "data.tune = 1e-06: change the share" in message


def test_compact_profile_has_them_and_the_paper_profile_has_none() -> None:
    assert resolve(shipped()).data.tune == 0.2
    assert resolve(shipped(profile="paper")).data.tune == 0.0


def test_validation_on_no_photograph_is_refused_by_configure() -> None:
    with pytest.raises(UserError, match=r"data\.validate_on = tune, but data\.tune = 0 "):
        resolve(shipped(data__tune=0.0, data__validate_on="tune"))
    with pytest.raises(UserError, match=r"data\.tune"):
        resolve(shipped(data__tune=0.95))
