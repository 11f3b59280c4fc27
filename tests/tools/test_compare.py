"""The table of several runs, and that the README shows what the kept metrics say."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from pipeline.run.errors import UserError
from pipeline.run.files import write_json
from tests.support import ROOT
from tools.compare import epochs_table, rules_table, stages_table, study_runs, study_table, tables, with_table

STUDIES = [path for path in sorted((ROOT / "metrics/studies").glob("*")) if path.is_dir()]


def write_run(study: Path, method: str, seed: int, miou: float, oracle: bool = True) -> None:
    protocol = {"method": method, "bg_thresh": 0.2, "seed": seed}
    folder = study / f"{method}-{seed}"
    write_json(folder / "masks.json", {"miou": miou})
    seeds = {
        "miou": miou - 0.1,
        "protocol": protocol,
        **({"oracle": {"miou": miou, "threshold": 0.3}} if oracle else {}),
    }
    write_json(folder / "seeds.json", seeds)


def test_table_by_hand(tmp_path: Path) -> None:
    for seed, miou in enumerate([0.5, 0.6, 0.7]):
        write_run(tmp_path, "cam", seed, miou)
    write_run(tmp_path, "irn", 0, 0.8, oracle=False)
    header, _, cam, irn = (
        re.split(r" *\| *", line.strip("| ")) for line in study_table(study_runs(tmp_path)).splitlines()
    )
    rows = [dict(zip(header, row, strict=True)) for row in (cam, irn)]
    assert (
        rows[0] | {"method": "cam", "seeds": "3", "masks mIoU": "60.0 ± 10.0", "seeds mIoU": "50.0 ± 10.0"} == rows[0]
    )
    assert rows[0]["at threshold"] == "0.30 ± 0.00"
    assert rows[1] | {"method": "irn", "masks mIoU": "80.0", "seeds, oracle": "-", "val mIoU": "-"} == rows[1]


def test_rules_of_several_runs_by_hand() -> None:
    runs = []
    for seed, miou in enumerate((0.5, 0.7)):
        scores = {"none": {"miou": miou, "fpr": 0.25}, "adcam": {"miou": miou + 0.1}}
        protocol = {"method": "adcam", "bg_thresh": 0.5, "seed": seed}
        runs.append({"seeds": {"protocol": protocol}, "rules": {"rules": scores}})
    table = rules_table(runs).splitlines()
    adcam, none = (dict(zip(table[0].split(" | "), row.split(" | "), strict=True)) for row in table[2:])
    assert adcam["mIoU"] == "70.0 ± 14.1" and none["mIoU"] == "60.0 ± 14.1"
    assert none["FPR"] == "25.0 ± 0.0" and adcam["FPR"] == "-"


def test_stages_by_hand() -> None:
    runs = []
    for seed, recall in enumerate((0.5, 0.7)):
        protocol = {"method": "esol", "bg_thresh": 0.5, "seed": seed, "rule": "none"}
        earlier = {"baseline": {"miou": 0.3, "recall": 0.4, "oracle": {"miou": 0.35, "threshold": 0.2}}}
        runs.append({"seeds": {"protocol": protocol, "miou": 0.6, "recall": recall, "earlier": earlier}})
    runs.append({"seeds": {"protocol": {"method": "cam", "bg_thresh": 0.5, "seed": 0}, "miou": 0.1}})
    table = stages_table(runs).splitlines()
    first, last = (dict(zip(table[0].split(" | "), row.split(" | "), strict=True)) for row in table[2:])
    assert first["stage"] == "baseline" and last["stage"] == "none (goes on)"
    assert last["recall"] == "60.0 ± 14.1" and first["recall"] == "40.0 ± 0.0" and first["oracle mIoU"] == "35.0 ± 0.0"
    assert rules_table(runs).count("\n") == 1


def test_epochs_by_hand() -> None:
    runs = []
    for seed, last in enumerate((0.3, 0.5)):
        scores = {"online": {"miou": [0.4, 0.6, last]}, "target": {"miou": [0.1, 0.1, 0.2]}}
        protocol = {"method": "bao_share", "bg_thresh": "none", "seed": seed}
        runs.append({"localizer": {"protocol": protocol, "epochs": scores}})
    table = epochs_table(runs).splitlines()
    online, target = (dict(zip(table[0].split(" | "), row.split(" | "), strict=True)) for row in table[2:])
    assert online["epochs"] == "3" and online["first epoch"] == "40.0 ± 0.0" and online["best epoch"] == "60.0 ± 0.0"
    assert online["last epoch"] == "40.0 ± 14.1" and online["last - best"] == "-20.0 ± 14.1"
    assert target["last - best"] == "0.0 ± 0.0" and target["number of the best |"] == "3.00 ± 0.00 |"


def test_runs_that_differ_in_what_the_table_hides_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, "cam", 0, 0.5)
    shutil.copytree(tmp_path / "cam-0", tmp_path / "cam-otherwise-0")
    with pytest.raises(UserError, match=r"two runs of cam, 0.2 have seed 0"):
        study_table(study_runs(tmp_path))


def test_numbers_that_only_some_runs_have_say_so(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path, "cam", seed, 0.5)
    write_json(tmp_path / "cam-0" / "segmenter.json", {"miou": 0.25})
    assert "| 25.0 (of 1) |" in study_table(study_runs(tmp_path))


def test_empty_study_and_missing_place_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no runs"):
        tables(tmp_path)
    with pytest.raises(UserError, match="no `<!-- study: x -->`"):
        with_table("text", "study: x", "table")


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_readme_shows_the_kept_metrics(study: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for place, lines in tables(study).items():
        assert with_table(text, place, lines) == text
