"""The table of paper settings: every resolved value of every method, each with a source."""

from __future__ import annotations

import re

import pytest

from pipeline.config.presets import methods, owner
from tests.support import ROOT
from tools import paper_settings
from tools.paper_settings import ROW, STAGES, Setting, filled, settings, used

PAGE = ROOT / paper_settings.PAGE
WORDS = re.compile(r"\b(published|released|reported|reconstructed|ours|these optimisers have none)\b")


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_table_holds_the_resolved_settings_of_all_methods() -> None:
    assert filled(page()) == page(), "run `make cards`, and give every `?` a source"


def test_every_value_has_a_source() -> None:
    rows = list(ROW.finditer(page()))
    assert len(rows) > 200
    assert not [row["knob"] for row in rows if not WORDS.search(row["source"])]


def test_every_setting_stands_in_one_row() -> None:
    rows = [Setting(row["knob"], row["value"]) for row in ROW.finditer(page())]
    assert len(rows) == len(set(rows)) and set(rows) == settings().keys()
    listed = {name for names in settings().values() for name in names}
    assert listed >= {name for name in methods() if owner(name) == name}


def test_another_value_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    before = filled(page())
    monkeypatch.setattr(
        paper_settings,
        "used",
        lambda method: ((knob, 999 if knob == "segmenter.optimisation.lr" else value) for knob, value in used(method)),
    )
    assert "| `segmenter.optimisation.lr` | 999 |" in filled(page()) != before


def test_unused_stages_list_nothing_but_that() -> None:
    knobs = {name for name, _ in used("cam")}
    assert {name for name in knobs if name.startswith(("affinity.", "refine.", "localizer."))} == {
        "affinity.network",
        "refine.rule",
        "localizer.network",
    }
    assert not {name for name, _ in used("toco")} & {"refine.beta", "refine.alpha"}
    assert {group for group in STAGES.values() if group} >= {name.partition(".")[0] for name in knobs} - {
        "bg_thresh",
        "precision",
    }
