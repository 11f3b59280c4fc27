"""Scores in two files: flat numbers that people compare, and details; nothing is lost or said twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.run.errors import UserError
from pipeline.scoring.records import NUMBERS, details_path, joined, read_scores, split, write_scores

ORACLE = {"miou": 0.75, "foreground_miou": 0.7, "threshold": 0.3, "chosen_with": "masks"}
SEEDS: dict[str, Any] = {
    "miou": 0.5,
    "fpr": 0.2,
    "per_class": {"cat": 0.4},
    "oracle": ORACLE,
    "no_threshold": {"miou": 0},
}

values = st.floats(0, 1) | st.dictionaries(st.sampled_from([*NUMBERS, "oracle"]), st.floats(0, 1))


@st.composite
def some_scores(draw: st.DrawFn) -> dict[str, Any]:
    scores: dict[str, Any] = draw(st.dictionaries(st.sampled_from(NUMBERS), st.floats(0, 1)))
    scores |= draw(st.dictionaries(st.sampled_from(["fpr", "per_class", "rules", "protocol", "code"]), values))
    if draw(st.booleans()):
        scores["oracle"] = {"miou": draw(st.floats(0, 1)), "threshold": draw(st.floats(0, 1))}
    if draw(st.booleans()):
        keys = st.sampled_from(["miou", "at_tuned", "threshold"])
        scores["tune"] = draw(st.dictionaries(keys, st.floats(0, 1)))
    return scores


@given(some_scores())
def test_split_and_joined_are_inverse_and_numbers_are_flat(scores: dict[str, Any]) -> None:
    numbers, details = split(scores)
    assert joined(numbers, details) == scores
    assert all(isinstance(number, float) for number in numbers.values())
    assert numbers.keys() & details.keys() <= {"oracle"} and "miou" not in details.get("oracle", {})
    assert "at_tuned" not in details.get("tune", {})


def test_split_by_hand() -> None:
    numbers, details = split(SEEDS)
    assert numbers == {"miou": 0.5, "oracle": 0.75}
    assert details == {
        "fpr": 0.2,
        "per_class": {"cat": 0.4},
        "oracle": {"foreground_miou": 0.7, "threshold": 0.3, "chosen_with": "masks"},
        "no_threshold": {"miou": 0},
    }


def test_what_others_chose_is_a_number_of_its_own() -> None:
    tune = {"images": 7, "miou": 0.4, "threshold": 0.3, "at_tuned": 0.45}
    numbers, details = split({"miou": 0.5, "tune": tune})
    assert numbers == {"miou": 0.5, "tuned": 0.45}
    assert details == {"tune": {"images": 7, "miou": 0.4, "threshold": 0.3}}


def test_files_stand_side_by_side(tmp_path: Path) -> None:
    write_scores(tmp_path, "seeds", SEEDS)
    assert json.loads((tmp_path / "seeds.json").read_text()) == {"miou": 0.5, "oracle": 0.75}
    assert json.loads((tmp_path / "details/seeds.json").read_text())["oracle"]["threshold"] == 0.3
    assert read_scores(tmp_path, "seeds", "evaluate@seeds") == SEEDS


def test_without_scores_the_numbers_are_empty(tmp_path: Path) -> None:
    write_scores(tmp_path, "seeds", {"images": 0})
    assert (tmp_path / "seeds.json").read_text() == "{}\n"
    assert read_scores(tmp_path, "seeds", "evaluate@seeds") == {"images": 0}


@pytest.mark.parametrize("details", [False, True])
def test_a_missing_file_names_the_stage_that_writes_it(tmp_path: Path, details: bool) -> None:
    write_scores(tmp_path, "seeds", SEEDS)
    (details_path(tmp_path, "seeds") if details else tmp_path / "seeds.json").unlink()
    with pytest.raises(UserError, match="dvc repro evaluate@seeds"):
        read_scores(tmp_path, "seeds", "evaluate@seeds")
