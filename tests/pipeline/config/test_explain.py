"""Knobs in words: every knob is explained, with its bounds."""

from __future__ import annotations

import pytest

from models.knobs import Knobs
from models.propagation.rules import load_rule, rule_names
from pipeline.config.explain import KnobRow, knob_rows, nearest, value_text
from pipeline.config.params import Params
from pipeline.config.presets import defaults
from tools.status import leaves

ROWS = {row.name: row for row in knob_rows(Params)}
GROUPS: list[tuple[str, type[Knobs]]] = [
    ("", Params),
    *((f"cams.{name}", load_rule(name).knobs) for name in rule_names()),
]


@pytest.mark.parametrize(("prefix", "group"), GROUPS, ids=[prefix or "all" for prefix, _ in GROUPS])
def test_every_knob_has_a_meaning_and_says_what_is_allowed(prefix: str, group: type[Knobs]) -> None:
    rows = list(knob_rows(group, prefix))
    assert len({row.name for row in rows}) == len(rows) and all(row.name.startswith(prefix) for row in rows)
    for row in rows:
        assert row.meaning and not row.meaning.endswith("."), row
        assert row.allowed and (row.allowed != "anything" or row.name == "cams.rule_knobs"), row


def test_defaults_are_those_that_values_start_from() -> None:
    declared = leaves(defaults(Params))
    for name, row in ROWS.items():
        if name != "cams.rule_knobs":
            assert row.default == (value_text(declared[name]) if name in declared else "-"), name
    assert set(declared) <= set(ROWS)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("profile", "compact, paper"),
        ("seed", "whole number >= 0, < 2147483648"),
        ("data.limit", "whole number >= 1 or none"),
        ("data.scenes.size", "whole number >= 64, <= 1024"),
        ("data.folder.val_share", "number >= 0, < 1"),
        ("data.voc2012.download", "true, false"),
        ("classifier.weights", "text"),
        ("localizer.network", "none, amn, bao, toco, dual_branch, esol"),
        ("localizer.bao.momentum", "list of number >= 0, <= 1 (2 to 2)"),
        ("cams.scales", "list of number >= 0.1, <= 4 (1 to 12)"),
        ("masks.crf", "psa, irn, deeplab, toco_seg, toco_cam, afa, deeplabv1_resnet38, mctformer or none"),
        ("report.gallery", "whole number >= 0, <= 200"),
    ],
)
def test_what_is_allowed_is_said_with_bounds(name: str, allowed: str) -> None:
    assert ROWS[name].allowed == allowed


def test_numbers_have_bounds() -> None:
    free = {"localizer.esol.clip_level"}  # what bounds it is another knob
    for name, row in ROWS.items():
        if "number" in row.allowed and name not in free:
            assert any(sign in row.allowed for sign in "<>"), row


def test_values_stand_as_the_file_writes_them() -> None:
    assert [value_text(value) for value in (None, True, 1.0, "a", [0.5, None], {"lr": 1})] == [
        "none",
        "true",
        "1.0",
        "a",
        "[0.5, none]",
        "{lr: 1}",
    ]


def test_sources_are_said() -> None:
    sourced = [row for row in ROWS.values() if row.source]
    assert isinstance(sourced[0], KnobRow) and len(sourced) > 50
    assert all(any(word in row.source for word in ("published", "released", "reconstructed")) for row in sourced)


def test_nearest_names() -> None:
    assert nearest("localizer.toco.crp").startswith("nearest are localizer.toco.crop")
    assert "classifier.optimisation.lr" in nearest("lr")
    assert nearest("zzzz") == "`make knobs` lists all"
