"""The tables of several runs: by hand, of different code, and that the page of results shows what the studies say."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.run.errors import UserError
from pipeline.run.files import write_json
from pipeline.scoring.records import INSIDE, NUMBERS, write_scores
from tests.support import ROOT
from tools.compare import earlier_table, epochs_table, main, rules_table, study_runs, study_table, tables, with_table
from tools.kept import learned_from_masks, setting

STUDIES = [path for path in sorted((ROOT / "metrics/studies").glob("*")) if path.is_dir()]
PAGE = ROOT / "docs/results.md"
CODE = {"extract_cams": "aaaa", "evaluate": "eeee"}


def write_run(
    study: Path, method: str, seed: int, miou: float, oracle: bool = True, code: dict[str, str] | None = None
) -> Path:
    """Keep a run that scored its seeds and masks, as a study does; gives its folder."""
    folder = study / f"{method}-{seed}"
    write_scores(folder, "masks", {"miou": miou})
    seeds: dict[str, Any] = {"miou": miou - 0.1, "protocol": {"method": method, "bg_thresh": 0.2, "seed": seed}}
    if oracle:
        seeds["oracle"] = {"miou": miou, "threshold": 0.3}
    if code is not None:
        seeds["code"] = code
    write_scores(folder, "seeds", seeds)
    return folder


def test_table_by_hand(tmp_path: Path) -> None:
    for seed, miou in enumerate([0.5, 0.6, 0.7]):
        write_run(tmp_path, "cam", seed, miou)
    write_run(tmp_path, "irn", 0, 0.8, oracle=False)
    header, _, cam, irn = (
        re.split(r" *\| *", line.strip("| ")) for line in study_table(study_runs(tmp_path)).splitlines()
    )
    rows = [dict(zip(header, row, strict=True)) for row in (cam, irn)]
    expected = {"method": "cam", "trainings x drawings": "3 x 1", "masks mIoU": "60.0 ± 10.0"}
    assert rows[0] | expected | {"seeds mIoU": "50.0 ± 10.0"} == rows[0]
    assert rows[0]["at threshold"] == "0.30 ± 0.00"
    assert rows[1] | {"method": "irn", "masks mIoU": "80.0", "seeds, oracle": "-", "val mIoU": "-"} == rows[1]


def scored(method: str, seed: int, drawing: int, val: float) -> dict[str, Any]:
    protocol = {"method": method, "bg_thresh": 0.2, "seed": seed, "drawing": drawing}
    masks = {"protocol": {"pixel_labels": "full supervision" if method == "supervised" else "none"}}
    return {"seeds": {"protocol": protocol, "miou": 0.5}, "masks": masks, "segmenter": {"miou": val}}


def test_what_a_network_learned_from_is_in_the_name_of_its_row(tmp_path: Path) -> None:
    for method, labels in (("irn", "full supervision: x"), ("supervised", "none"), ("supervised", "full supervision")):
        run = scored(method, 0, 0, 0.5)
        run["masks"]["protocol"]["pixel_labels"] = labels
        learned = labels != "none"
        words = "" if learned == (method == "supervised") else ", true masks" if learned else ", pseudo masks"
        assert setting(run)[0] == method + words and learned_from_masks(run) == learned


def test_saliency_is_in_the_name_of_the_row() -> None:
    run = scored("esol", 0, 0, 0.5)
    run["seeds"]["protocol"]["supervision"] = "I+S, maps 0123456789ab"
    run["masks"]["protocol"]["pixel_labels"] = "none"
    assert setting(run)[0] == "esol (I+S)"


def test_imports_and_segments_are_in_the_name_of_the_row() -> None:
    run = scored("imported", 0, 0, 0.5)
    run["masks"]["protocol"] |= {
        "imported": "cams of irn_cams, 0123456789ab",
        "segments": "sam, ba9876543210, share 0.5",
    }
    assert setting(run)[0] == "imported cams of irn_cams, 0123456789ab + segments"


def test_runs_of_other_knobs_are_no_repetitions(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path, "cam", seed, 0.5)
    assert "2 x 1" in tables(tmp_path)[f"study: {tmp_path.name}"]
    path = tmp_path / "cam-1/details/seeds.json"
    details = json.loads(path.read_text())
    details["protocol"] |= {"cam_long_side": 99, "bg_thresh_used": 0.7}
    path.write_text(json.dumps(details))
    with pytest.raises(UserError, match=r"runs of cam, 0\.2 differ in cam_long_side of seeds, so they are no"):
        tables(tmp_path)


def test_tokens_of_one_stage_methods_have_a_table_of_their_own(tmp_path: Path) -> None:
    write_run(tmp_path, "cam", 0, 0.5)
    assert "tokens: " + tmp_path.name not in tables(tmp_path)
    folder = write_run(tmp_path, "toco", 0, 0.6)
    details = {"training": {"similarity": 0.5}, "protocol": {"method": "toco", "bg_thresh": 0.2, "seed": 0}}
    write_json(folder / "details/localizer.json", details)
    lines = tables(tmp_path)["tokens: " + tmp_path.name].splitlines()
    header, row = (re.split(r" *\| *", line.strip("| ")) for line in (lines[0], lines[2]))
    found = dict(zip(header, row, strict=True))
    assert found | {"method": "toco", "token similarity": "0.50", "seeds, oracle": "60.0", "val mIoU": "-"} == found


def test_spread_is_over_trainings_and_drawings_and_the_ceiling_is_of_the_same_drawing() -> None:
    runs = [scored("cam", seed, drawing, 0.3 + 0.1 * drawing) for seed in (0, 1) for drawing in (0, 1)]
    full = [scored("supervised", 0, 0, 0.5), scored("supervised", 1, 0, 0.7), scored("supervised", 0, 1, 0.8)]
    table = study_table(runs + full).splitlines()
    cam, supervised = (dict(zip(table[0].split(" | "), row.split(" | "), strict=True)) for row in table[2:])
    assert cam["trainings x drawings"] == "2 x 2" and supervised["trainings x drawings"] == "3 of 2 x 2"
    assert cam["val mIoU"] == "35.0 ± 5.8" and cam["of the ceiling |"] == "50.0 ± 0.0 |"
    assert study_table(runs).endswith("| - |")


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


def test_earlier_maps_by_hand() -> None:
    runs = []
    for seed, recall in enumerate((0.5, 0.7)):
        protocol = {"method": "esol", "bg_thresh": 0.5, "seed": seed, "rule": "none"}
        earlier = {"baseline": {"miou": 0.3, "recall": 0.4, "oracle": {"miou": 0.35, "threshold": 0.2}}}
        runs.append({"seeds": {"protocol": protocol, "miou": 0.6, "recall": recall, "earlier": earlier}})
    runs.append({"seeds": {"protocol": {"method": "cam", "bg_thresh": 0.5, "seed": 0}, "miou": 0.1}})
    table = earlier_table(runs).splitlines()
    first, last = (dict(zip(table[0].split(" | "), row.split(" | "), strict=True)) for row in table[2:])
    assert first["maps"] == "baseline" and last["maps"] == "none (used)"
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
    with pytest.raises(UserError, match=r"two runs of cam, 0.2 have seed 0 \(drawing none\)"):
        study_table(study_runs(tmp_path))


def test_numbers_that_only_some_runs_have_say_so(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path, "cam", seed, 0.5)
    write_scores(tmp_path / "cam-0", "segmenter", {"miou": 0.25})
    assert "| 25.0 (of 1) |" in study_table(study_runs(tmp_path))


def test_runs_of_the_same_code_need_no_note(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path, "cam", seed, 0.5, code=CODE)
    write_run(tmp_path, "irn", 0, 0.6, code={"extract_cams": "bbbb", "evaluate": "eeee"})
    (lines,) = tables(tmp_path).values()
    assert lines.splitlines()[-1].startswith("| irn |"), "methods run modules of their own"
    assert tables(tmp_path, mixed=True) == tables(tmp_path)


@pytest.mark.parametrize(
    ("method", "code", "message"),
    [
        ("cam", {"extract_cams": "bbbb", "evaluate": "eeee"}, "cam: 2 versions of extract_cams"),
        ("cam", {"evaluate": "ffff"}, "all methods: 2 versions of evaluate"),
        ("irn", {"extract_cams": "bbbb", "evaluate": "ffff"}, "all methods: 2 versions of evaluate"),
        ("cam", None, "code not recorded for 1 of 2 runs"),
        ("cam", {"extract_cams": ""}, "code not recorded for 1 of 2 runs"),
    ],
)
def test_runs_of_different_code_are_refused_or_marked(
    tmp_path: Path, method: str, code: dict[str, str] | None, message: str
) -> None:
    write_run(tmp_path, "cam", 0, 0.5, code=CODE)
    write_run(tmp_path, method, 1, 0.6, code=code)
    with pytest.raises(UserError, match=rf"different code \({message}\); .*--mixed"):
        tables(tmp_path)
    (lines,) = tables(tmp_path, mixed=True).values()
    assert lines.splitlines()[-1] == f"Runs of different code: {message}."


def test_stages_that_only_one_run_went_through_make_no_difference(tmp_path: Path) -> None:
    write_run(tmp_path, "cam", 0, 0.5, code=CODE)
    write_run(tmp_path, "cam", 1, 0.5, code=CODE | {"train_segmenter": "cccc"})
    (lines,) = tables(tmp_path).values()
    assert "different" not in lines


def test_run_whose_artefacts_are_of_different_code_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "cam", 0, 0.5, code=CODE)
    write_scores(folder, "masks", {"miou": 0.5, "code": CODE | {"extract_cams": "bbbb"}})
    with pytest.raises(UserError, match="cam: 2 versions of extract_cams"):
        tables(tmp_path)


def test_runs_that_record_no_code_say_so(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path, "cam", seed, 0.5)
    (lines,) = tables(tmp_path).values()
    assert lines.endswith(" |\n\nCode not recorded.")


def test_command_writes_the_page_and_marks_mixed_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, page = tmp_path / "x", tmp_path / "page.md"
    write_run(study, "cam", 0, 0.5, code=CODE)
    write_run(study, "cam", 1, 0.5)
    page.write_text("before\n<!-- study: x -->\nformer\n<!-- end -->\nafter\n")
    command = ["compare", str(study), "--page", str(page)]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(UserError, match="different code"):
        main()
    assert "former" in page.read_text()
    monkeypatch.setattr("sys.argv", [*command, "--mixed"])
    main()
    text = page.read_text()
    assert text.startswith("before\n<!-- study: x -->\n| method |") and text.endswith("<!-- end -->\nafter\n")
    assert "former" not in text and "code not recorded for 1 of 2 runs" in text


def test_a_run_without_its_numbers_is_refused(tmp_path: Path) -> None:
    (write_run(tmp_path, "cam", 0, 0.5) / "masks.json").unlink()
    with pytest.raises(UserError, match=r"masks.json is missing"):
        tables(tmp_path)


def test_empty_study_and_missing_place_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no runs"):
        tables(tmp_path)
    with pytest.raises(UserError, match="no `<!-- study: x -->`"):
        with_table("text", "study: x", "table")


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_page_of_results_shows_the_kept_scores(study: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for place, lines in tables(study).items():
        assert with_table(text, place, lines) == text


def test_page_of_results_has_no_other_table() -> None:
    places = [place for study in STUDIES for place in tables(study)]
    text = PAGE.read_text(encoding="utf-8")
    assert sorted(re.findall(r"<!-- (\w+: [\w-]+) -->", text)) == sorted(places)
    assert text.count("\n| --- |") == len(places) == text.count("<!-- end -->") - 1, "and the bars of the instrument"


@pytest.mark.parametrize("folder", sorted(ROOT.glob("metrics/studies/*/*")), ids=lambda path: f"{path.name}")
def test_kept_files_hold_numbers_or_details(folder: Path) -> None:
    for path in folder.glob("*.json"):
        numbers = json.loads(path.read_text(encoding="utf-8"))
        assert set(numbers) <= {*NUMBERS, *INSIDE} and all(isinstance(value, float) for value in numbers.values())
        assert (folder / "details" / path.name).exists()
