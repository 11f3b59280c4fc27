"""`make knobs`: every knob with its value, the place that gave it, what is allowed, and its meaning."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.config.explain import knob_rows, value_text
from pipeline.config.load import resolve
from pipeline.config.params import Params
from pipeline.config.presets import defaults, methods
from pipeline.run.errors import UserError
from tests.support.knobs import SHIPPED, shipped
from tools.knobs import WIDTH, Setting, chosen, described, main, settings
from tools.status import leaves


def by_name(**changes: object) -> dict[str, Setting]:
    return {setting.row.name: setting for setting in settings(shipped(**changes))}


@pytest.mark.parametrize("method", methods())
def test_every_knob_stands_with_its_value_once(method: str) -> None:
    values = leaves(resolve(shipped(method=method)).model_dump(mode="json"))
    found = list(settings(shipped(method=method)))
    names = [setting.row.name for setting in found]
    assert len(set(names)) == len(names)
    assert {row.name for row in knob_rows(Params)} - {"cams.rule_knobs"} <= set(names)
    for setting in found:
        if setting.row.name in values:
            assert setting.value == value_text(values[setting.row.name])


def test_where_nothing_else_gives_a_value_it_is_the_published_default() -> None:
    declared = leaves(defaults(Params))
    unset = [setting for setting in settings(shipped()) if setting.given_by == "default"]
    assert len(unset) > 80
    for setting in unset:
        if setting.row.name in declared:
            assert setting.value == setting.row.default == value_text(declared[setting.row.name])
        else:
            assert setting.row.name.startswith("cams.none."), setting


def test_the_place_that_gave_a_value_is_named() -> None:
    found = by_name(method="dual_branch", localizer__toco__crop=40)
    assert (found["localizer.toco.crop"].value, found["localizer.toco.crop"].given_by) == ("40", "params.yaml")
    assert (found["localizer.toco.crops"].value, found["localizer.toco.crops"].given_by) == ("2", "toco.yaml compact")
    assert found["localizer.network"].given_by == "dual_branch.yaml common"
    assert found["affinity.backbone"].given_by == "base.yaml compact"
    assert by_name(method="bao_static")["localizer.bao.confidence_pair"].given_by == "bao.yaml bao_static compact"


def test_knobs_of_the_rules_that_are_asked_for_stand_there() -> None:
    found = by_name(method="adcam", cams__rules=["adcam:steps=3", "caa"], cams__adcam={"gamma": 0.5})
    assert (found["cams.adcam.gamma"].value, found["cams.adcam.gamma"].given_by) == ("0.5", "params.yaml")
    assert found["cams.caa.steps"].given_by == "default"
    assert not any(name.startswith("cams.ppr.") for name in found)


def test_lines_fit_a_terminal() -> None:
    for setting in settings(shipped(method="adcam")):
        lines = described(setting).splitlines()
        assert lines[0].startswith(f"{setting.row.name} = {setting.value}") and len(lines) > 1
        assert max(map(len, lines[1:])) <= WIDTH
        assert "allowed: " in " ".join(line.strip() for line in lines)


def test_words_method_and_profile_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(SHIPPED, "params.yaml")
    monkeypatch.setattr("sys.argv", ["knobs", "toco.cr", "--method", "toco", "--profile", "paper"])
    main()
    first = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert first == ["localizer.toco.crop = 96  (default)", "localizer.toco.crops = 8  (default)"]


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(UserError, match="no such knob"):
        list(settings(shipped(localizer__toco__crp=1)))


@pytest.mark.parametrize(
    ("word", "changes", "line"),
    [
        ("localizer.toco.crop", {"localizer__toco__crop": 64}, "localizer.toco.crop = 64  (params.yaml)"),
        ("refine.rule", {"method": "irn"}, "refine.rule = irn_walk  (irn.yaml common)"),
        ("masks.max_side", {}, "masks.max_side = 1024  (default)"),
        ("bg_thresh", {"bg_thresh": "none"}, "bg_thresh = none  (params.yaml)"),
        ("adcam.gamma", {"cams__adcam__gamma": 2}, "cams.adcam.gamma = 2.0  (params.yaml)"),
    ],
)
def test_first_line_says_value_and_origin(word: str, changes: dict[str, object], line: str) -> None:
    first, *rest = described(chosen(shipped(**changes), [word])[0]).splitlines()
    assert first == line and "allowed: " in " ".join(rest)


def test_rules_are_shown_where_they_are_asked_for_or_named() -> None:
    def rules(words: list[str], **changes: object) -> set[str]:
        names = [setting.row.name.split(".") for setting in chosen(shipped(**changes), words)]
        return {name[1] for name in names if name[0] == "cams" and len(name) == 3}

    assert rules([]) == set() and rules([], method="adcam") == {"adcam"}
    assert rules(["caa"]) == {"caa"} and rules(["cams.ppr.blocks"], method="adcam") == {"ppr"}


def test_word_that_no_name_contains_is_an_error_with_the_nearest_names() -> None:
    with pytest.raises(UserError, match=r"contains localizer\.toco\.crpo; nearest are localizer\.toco\.crop"):
        chosen(shipped(), ["localizer.toco.crpo"])
