"""The photographs to choose on: drawn by their id alone, reported nowhere, or the validation split."""

from __future__ import annotations

import pytest

from pipeline.config.load import resolve
from pipeline.data.manifest import Manifest, Record
from pipeline.data.tune import drawn, marked, validated_on_tune
from pipeline.run.errors import UserError
from tests.support.knobs import shipped
from tests.support.sources import SPLIT_HEADER, folder, photos, prepare, refusal, table

RECORDS = [Record(f"p{number}", "val" if number % 4 == 0 else "train", "", 1, 1, ("a",)) for number in range(400)]


def ids(records: tuple[Record, ...] | list[Record]) -> set[str]:
    return {record.id for record in records}


def test_share_is_drawn_by_id_and_only_of_training_photographs() -> None:
    some = [record for record in marked(RECORDS, 0.2) if record.tune]
    assert {record.split for record in some} == {"train"} and 40 <= len(some) <= 80
    fewer = [record for record in marked(RECORDS[::3], 0.2) if record.tune]
    assert ids(fewer) == ids(some) & ids(RECORDS[::3]), "other photographs change nothing"
    assert ids(some) <= {name for name in ids(RECORDS) if drawn(name, 0.3)}, "a larger share holds a smaller one"
    assert not any(record.tune for record in marked(RECORDS, 0.0))


def test_reported_and_others_share_no_photograph() -> None:
    manifest = Manifest(tuple(marked(RECORDS, 0.2)), ("a",))
    train = manifest.split("train")
    reported, others = train.reported().records, train.to_choose_on().records
    assert len(reported) + len(others) == len(train.records) == 300 and not ids(reported) & ids(others)
    assert manifest.validation_name() == "val" and manifest.split("val").reported() == manifest.split("val")


def test_tune_photographs_validate_and_leave_the_training() -> None:
    records = marked(RECORDS, 0.2)
    manifest = Manifest(tuple(validated_on_tune(records)), ("a",))
    held_out = manifest.split("val")
    assert ids(held_out.records) == {record.id for record in records if record.tune}
    assert not ids(manifest.records) & {record.id for record in RECORDS if record.split == "val"}
    assert manifest.validation_name() == "tune" and held_out.reported() == held_out
    assert not manifest.split("train").to_choose_on().records


@pytest.mark.usefixtures("empty_folder")
def test_stage_writes_the_column_and_says_what_validates(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{number}.png" for number in range(20)]
    photos(*names)
    table(*(f"{name},cat,{'val' if number < 4 else 'train'}" for number, name in enumerate(names)), header=SPLIT_HEADER)
    manifest = prepare(folder(tune=0.4))
    tune = ids(manifest.to_choose_on().records)
    assert tune and "4 val images" in capsys.readouterr().out
    manifest = prepare(folder(tune=0.4, validate_on="tune"))
    assert ids(manifest.split("val").records) == tune and f"{len(tune)} tune images" in capsys.readouterr().out


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
