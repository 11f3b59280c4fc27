"""The stage that finds the background threshold of every store of maps, through real files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline import choose_background, evaluate, make_masks
from pipeline.data.manifest import PREPARED, load_manifest, save_ground_truth
from pipeline.data.masks import read_mask
from pipeline.maps import background_search
from pipeline.maps.background_found import threshold_of
from pipeline.maps.background_rules import SET_RULES
from pipeline.run.errors import UserError
from tests.support.project import PHOTOGRAPHS, SIZE, TAGS, coarse, configure, write_masks, write_photographs
from tests.support.stages import run_light
from tests.support.store import write_store

Choose = Callable[..., dict[str, Any]]


@pytest.fixture
def choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Choose:
    """A folder with seeds, earlier seeds, two rules, and refined maps that are the seeds; runs the stage there."""
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path, TAGS, paint=coarse)
    save_ground_truth(PREPARED, {}, None)
    write_store(Path("data/seeds"), 0)
    shutil.copytree("data/seeds", "data/refined")
    write_store(Path("data/seeds/aux"), 1)
    shutil.copytree("data/seeds/aux", "data/rules/none")
    write_store(Path("data/rules/adcam:gamma=0"), 2)

    def run(rule: object) -> dict[str, Any]:
        configure(tmp_path, bg_thresh=rule, data__name="folder", data__root=PHOTOGRAPHS, masks__crf="none")
        run_light(choose_background)
        return {path.stem: json.loads(path.read_text()) for path in Path("data/background").iterdir()}

    return run


@pytest.mark.parametrize("rule", SET_RULES)
def test_every_store_gets_a_threshold_and_equal_stores_the_same(choose: Choose, rule: str) -> None:
    found = choose(rule)
    assert {name: set(part["thresholds"]) for name, part in found.items()} == {
        "seeds": {"seeds", "seeds/aux"},
        "rules": {"rules/none", "rules/adcam:gamma=0"},
        "refined": {"refined"},
    }
    thresholds = {name: value for part in found.values() for name, value in part["thresholds"].items()}
    assert all(0 < value < 1 for value in thresholds.values()) and all(
        part["bg_thresh"] == rule for part in found.values()
    )
    assert thresholds["seeds"] == thresholds["refined"] and thresholds["seeds/aux"] == thresholds["rules/none"]
    assert threshold_of(rule, Path("data/seeds/aux")) == thresholds["seeds/aux"]
    table = pd.read_csv("metrics/plots/background/merit.csv")
    assert set(table) == {"threshold", *thresholds} and Path("metrics/plots/background/merit.png").exists()
    assert table["threshold"][table["refined"].argmax()] == pytest.approx(thresholds["refined"], abs=1e-5)
    again = Path("data/background/seeds.json").read_bytes()
    choose(rule)
    assert Path("data/background/seeds.json").read_bytes() == again


def test_maps_of_validation_photographs_take_the_threshold_of_the_training_maps(choose: Choose) -> None:
    write_store(Path("data/validation/seeds"), 3)
    found = choose("colours")
    assert set(found["seeds"]["thresholds"]) == {"seeds", "seeds/aux"}
    assert threshold_of("colours", Path("data/validation/seeds")) == found["seeds"]["thresholds"]["seeds"]


def test_equal_stores_are_looked_at_once(choose: Choose, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []
    real = background_search.merit

    def merit(rule: Any, store: Path, *rest: Any) -> Any:
        looked.append(store)
        return real(rule, store, *rest)

    monkeypatch.setattr(background_search, "merit", merit)
    choose("colours")
    assert len(looked) == 3


@pytest.mark.parametrize("rule", [0.3, "none", "otsu"])
def test_what_needs_no_search_is_handed_on(choose: Choose, rule: object) -> None:
    found = choose(rule)
    expected = None if rule == "none" else rule
    assert found["seeds"] == {"bg_thresh": expected, "thresholds": {"seeds": expected, "seeds/aux": expected}}
    assert pd.read_csv("metrics/plots/background/merit.csv").empty
    shutil.rmtree("data/background")
    assert threshold_of(expected, Path("data/refined")) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", SET_RULES)
def test_maps_of_no_class_are_background(choose: Choose, rule: str) -> None:
    write_store(Path("data/refined"), 0, tags=False)
    assert choose(rule)["refined"]["thresholds"] == {"refined": 1.0}


def test_masks_and_scores_use_what_was_found(choose: Choose, monkeypatch: pytest.MonkeyPatch) -> None:
    write_masks(Path(), load_manifest(), lambda _, record: np.ones(record.size, np.uint8))
    used = choose("colours")["refined"]["thresholds"]["refined"]
    run_light(make_masks)
    for artefact in ("refined", "masks", "rules"):
        monkeypatch.setattr("sys.argv", ["evaluate", artefact])
        run_light(evaluate)
    for artefact in ("refined", "masks"):
        protocol = json.loads(Path(f"metrics/details/{artefact}.json").read_text())["protocol"]
        assert (protocol["bg_thresh"], protocol["bg_thresh_used"]) == ("colours", used)
    rules = json.loads(Path("metrics/details/rules.json").read_text())["rules"]
    assert {scores["bg_thresh_used"] for scores in rules.values()} == {
        threshold_of("colours", Path(f"data/rules/{name}")) for name in rules
    }
    masks = [read_mask(Path(f"data/masks/{number}.png"), SIZE) for number in range(len(TAGS))]
    choose(used)  # as a number
    run_light(make_masks)
    for number, mask in enumerate(masks):
        np.testing.assert_array_equal(read_mask(Path(f"data/masks/{number}.png"), SIZE), mask)


def test_thresholds_of_another_rule_are_refused(choose: Choose) -> None:
    with pytest.raises(UserError, match="choose_background"):
        threshold_of("colours", Path("data/seeds"))
    choose("colours")
    for rule, store in (("entropy", "data/seeds"), ("colours", "data/seeds/other")):
        with pytest.raises(UserError, match="run `dvc repro choose_background`"):
            threshold_of(rule, Path(store))


def test_sample_is_spread_over_all_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_search, "PHOTOGRAPHS", 4)
    assert background_search.sampled(list(range(10))) == [0, 2, 5, 7]  # type: ignore[arg-type]
    assert background_search.sampled([]) == []
