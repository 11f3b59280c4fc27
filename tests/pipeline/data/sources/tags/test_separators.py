"""Which sign separates labels: recognised from the cells, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.sources.tags.separators import parted


def split(*cells: str) -> tuple[list[tuple[str, ...]], list[str], list[str]]:
    notes: list[str] = []
    problems: list[str] = []
    return parted(Path("t.csv"), cells, notes, problems), notes, problems


@pytest.mark.parametrize(
    ("cells", "tags"),
    [
        (["cat|dog", " dog | "], [("cat", "dog"), ("dog",)]),
        (["cat, dog", "dog", ""], [("cat", "dog"), ("dog",), ()]),
        (["cat; dog", "cow;dog"], [("cat", "dog"), ("cow", "dog")]),
        (["traffic light", "cat"], [("traffic light",), ("cat",)]),
        (['["cat", "dog"]', "[]", ""], [("cat", "dog"), (), ()]),
    ],
)
def test_signs_are_recognised(cells: list[str], tags: list[tuple[str, ...]]) -> None:
    found, _, problems = split(*cells)
    assert found == tags and problems == []


@pytest.mark.parametrize("cells", [["chair, wooden", "cat"], ["cat, dog", "cat; dog", "cat"], ["cat,dog", "cat,dog"]])
def test_what_may_be_one_class_or_several_is_refused(cells: list[str]) -> None:
    _, _, problems = split(*cells)
    assert len(problems) == 1 and "one class or several?" in problems[0]


def test_a_bar_declares_itself_and_a_comma_beside_it_is_said() -> None:
    found, notes, problems = split("chair, wooden|", "cat")
    assert found == [("chair, wooden",), ("cat",)] and problems == [] and "holds a comma" in notes[0]
    assert "holds a comma" in split("cat, dog|cow", "cat")[2][0]


def test_labels_made_of_others_are_said() -> None:
    assert "the label 'cat dog' is made of others" in split("cat", "dog", "cat dog")[1][0]
