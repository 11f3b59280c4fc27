"""`make status`: why a stage would run; DVC itself is asked in the test of the whole pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.run.files import write_json
from tools import status
from tools.status import FILES, downstream, main, own_reasons

CACHE = Path(".dvc/cache") / FILES

TOLD = {"lr": 0.1, "scales": [1.0], "group": {"steps": 2}, "code": "old"}
LOCK = {
    "prepare_data": {"outs": [{"path": "data/prepared"}]},
    "extract_cams": {
        "deps": [{"path": "data/config/extract_cams.json", "md5": "ab12"}, {"path": "data/prepared/manifest.csv"}],
        "outs": [{"path": "data/seeds"}],
    },
    "make_masks": {"deps": [{"path": "data/seeds"}], "outs": [{"path": "data/masks"}]},
    "report": {"deps": [{"path": "data/masks"}, {"path": "metrics/details"}]},
    "train_affinity": {"deps": [{"path": "data/elsewhere"}], "outs": [{"path": "data/affinity"}]},
}
TOLD_PATH = "data/config/extract_cams.json"


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": LOCK}))
    monkeypatch.setattr(status.configure, "main", lambda: None)
    write_json(CACHE / "ab" / "12", TOLD)


def reasons(now: dict[str, Any]) -> list[str]:
    """Why extract_cams would run where it is told something now."""
    write_json(Path(TOLD_PATH), now)
    return list(own_reasons("extract_cams", [{"changed deps": {TOLD_PATH: "modified"}}]))


def test_changed_knobs_are_named_with_both_values() -> None:
    now = {"lr": 0.2, "scales": [1.0], "group": {"steps": 4, "new": "x"}, "code": "old"}
    assert reasons(now) == ["group.new: unset -> x", "group.steps: 2 -> 4", "lr: 0.1 -> 0.2"]


def test_changed_code_is_said() -> None:
    assert reasons(TOLD | {"code": "new"}) == ["code of this stage changed"]
    write_json(CACHE / "ab" / "12", {"code": {"extract_cams": "old", "evaluate": "same"}})
    now = {"code": {"extract_cams": "new", "evaluate": "same"}}
    assert reasons(now) == ["code of extract_cams changed"]


def test_changed_data_and_commands_are_said() -> None:
    items: list[Any] = [{"changed deps": {"data/seeds": "modified"}}, {"changed outs": {"data/masks": "deleted"}}]
    found = list(own_reasons("make_masks", [*items, "changed command"]))
    assert found == ["data/seeds is modified", "data/masks is deleted", "its command changed"]


def test_what_is_no_longer_in_the_cache_is_said() -> None:
    (CACHE / "ab" / "12").unlink()
    assert reasons(TOLD) == ["what it was told last time is not in DVC's cache"]


def test_stages_after_a_stage_are_found_through_what_they_read() -> None:
    assert downstream({"prepare_data"}) == {"extract_cams", "make_masks", "report"}
    assert downstream({"make_masks"}) == {"report"} and downstream({"report", "train_affinity"}) == set()


@pytest.mark.parametrize(
    ("changed", "printed"),
    [
        ({"configure": []}, "nothing would run: every stage's knobs, code and data are those of its last run\n"),
        (
            {"make_masks": [{"changed deps": {"data/seeds": "modified"}}], "report": []},
            "make_masks: data/seeds is modified\nreport: it has not run here\n",
        ),
        (
            {"extract_cams": [{"changed deps": {"data/prepared/manifest.csv": "modified"}}]},
            "extract_cams: data/prepared/manifest.csv is modified\n"
            "after these, where they write something else: make_masks, report\n",
        ),
    ],
)
def test_one_line_for_each_stage(
    changed: dict[str, Any], printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, ...]] = []

    def dvc(*arguments: str) -> str:
        asked.append(arguments)
        return json.dumps(changed)

    monkeypatch.setattr(status, "dvc", dvc)
    monkeypatch.setattr(status.configure, "main", lambda: asked.append(("configure",)))
    main()
    assert capsys.readouterr().out == printed
    assert asked == [("configure",), ("status", "--json")], "nothing that writes the lock file"
