"""`make knobs`: value, the place that gave it, what is allowed; of the rules that are asked for or named."""

from __future__ import annotations

import pytest

from pipeline.run.errors import UserError
from tests.support.knobs import shipped
from tools.knobs import chosen, described


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
