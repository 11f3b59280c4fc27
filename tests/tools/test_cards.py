"""Tables of knobs in the documentation, filled from declarations."""

from __future__ import annotations

import pytest

from models.knobs import Knobs, Share, knob
from pipeline.config.explain import knob_rows
from pipeline.run.errors import UserError
from tools.cards import all_knobs, filled

PAGE = "Text.\n\n<!-- knobs: toy -->\nold\n<!-- end -->\n\nMore `<!-- knobs: toy -->`.\n"


class Inner(Knobs):
    """A group inside."""

    hidden: Share = knob(0.1, "not in the table of the group around it")


class Toy(Knobs):
    """A group of knobs."""

    share: Share = knob(0.5, "a share | of <something>", "published, Somebody")
    inner: Inner = Inner()


def test_a_table_shows_each_knob_of_its_group_once() -> None:
    page = filled(PAGE, list(knob_rows(Toy, "toy")))
    assert page.startswith("Text.\n\n<!-- knobs: toy -->\n| knob |") and page.endswith("More `<!-- knobs: toy -->`.\n")
    (row,) = (line for line in page.splitlines() if line.startswith("| `"))
    assert row.startswith("| `share` | 0.5 |") and row.endswith(
        r"| a share \| of &lt;something> | published, Somebody |"
    )
    assert filled(page, list(knob_rows(Toy, "toy"))) == page


def test_a_group_inside_has_a_place_of_its_own() -> None:
    page = filled(PAGE.replace("knobs: toy", "knobs: toy.inner"), list(knob_rows(Toy, "toy")))
    assert "| `hidden` | 0.1 |" in page and "| `share` |" not in page


def test_a_group_that_does_not_exist_is_named() -> None:
    with pytest.raises(UserError, match=r"other\.\*"):
        filled(PAGE.replace("knobs: toy", "knobs: other"), list(knob_rows(Toy, "toy")))


def test_every_rule_has_a_group() -> None:
    assert {"cams.adcam.gamma", "cams.caa.steps", "bg_thresh"} <= {row.name for row in all_knobs()}
