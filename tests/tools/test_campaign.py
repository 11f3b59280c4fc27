"""The campaign: its table and page, and a small selection of what it tries."""

from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path

import pytest

from pipeline.run.errors import UserError
from pipeline.run.files import write_json
from tests.support import ROOT
from tools.campaign import __main__ as campaign
from tools.campaign import damage, disk, kills
from tools.campaign.inputs import bad_inputs
from tools.campaign.project import Project, declared_outputs, new_project
from tools.campaign.running import load
from tools.campaign.tries import Try, table

TRIES = [Try("b", "x"), Try("a", "y", "other bytes"), Try("b", "z")]
TABLE = """| what | tried | right | wrong |
|---|---|---|---|
| b | 2 | 2 | 0 |
| a | 1 | 0 | 1 |
| **all** | 3 | 2 | 1 |"""


def test_table_counts_by_kind() -> None:
    assert table(TRIES) == TABLE


def test_page_gets_the_table_of_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- campaign -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(sys, "argv", ["campaign", "--page", str(page)])
    with pytest.raises(UserError, match="nothing is kept"):
        campaign.main()
    some = [{"kind": one.kind, "what": one.what, "wrong": one.wrong} for one in TRIES]
    write_json(campaign.PLACE / "inputs.json", {"seed": 3, "tries": some})
    campaign.main()
    assert page.read_text() == f"before\n<!-- campaign -->\nSeed 3.\n\n{TABLE}\n<!-- end -->\nafter\n"


def test_what_was_wrong_ends_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(campaign, "tasks", lambda *_: {"inputs": lambda: iter(TRIES)})
    monkeypatch.setattr(sys, "argv", ["campaign", "inputs"])
    with pytest.raises(UserError, match=r"^a: y: other bytes$"):
        campaign.main()
    monkeypatch.setattr(sys, "argv", ["campaign", "other"])
    with pytest.raises(UserError, match="no such task: other; there are inputs"):
        campaign.main()


def test_outputs_are_those_of_every_stage() -> None:
    found = declared_outputs()
    assert "data/masks" in found["make_masks"] and "metrics/seeds.json" in found["evaluate@seeds"]
    assert not [path for paths in found.values() for path in paths if "$" in path]


def test_page_of_the_campaign_has_no_wrong_row() -> None:
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| ") and "tried" not in line]
    assert rows and all(int(tried) == int(right) and int(wrong) == 0 for _, tried, right, wrong in rows)


def test_bad_inputs_are_refused_or_read() -> None:
    assert not [one for one in bad_inputs(ROOT) if one.wrong]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    load()
    found = new_project(
        tmp_path_factory.mktemp("campaign") / "project", ("configure", "prepare_data", "train_classifier")
    )
    found.run("cam")
    return found


@pytest.mark.slow
def test_killed_stages_end_with_the_same_bytes(project: Project) -> None:
    tries = list(kills.kills(project, 3, random.Random(0)))
    assert len(tries) == 3 and not [one for one in tries if one.wrong]


@pytest.mark.slow
def test_damaged_checkpoints_are_made_anew(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(damage, "UNFINISHED", {"train_classifier": "checkpoint.pt"})
    tries = list(damage.unfinished(project, random.Random(0)))
    assert len(tries) == 4 and not [one for one in tries if one.wrong]


@pytest.mark.slow
def test_other_bytes_are_noticed(project: Project) -> None:
    weights = project.folder / "data/classifier/weights.safetensors"
    shutil.copyfile(project.folder / "data/classifier/network.json", weights)
    assert project.difference("train_classifier") == "other bytes: data/classifier/weights.safetensors"
    project.restore()
    assert not project.difference("train_classifier")


def test_words_of_a_full_disk_are_looked_at() -> None:
    assert disk.wrong_about(disk.Ended(1, "ERROR: the disk below x is full, or a quota is reached (y)")) == []
    assert len(disk.wrong_about(disk.Ended(1, "Traceback (most recent call last):"))) == 2
