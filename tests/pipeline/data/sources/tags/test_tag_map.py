"""A map from photographs to tags."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.sources.tags.read import read_map
from pipeline.run.errors import UserError


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.json", '{"a.jpg": ["dog", "cat"], "b.jpg": "cat", "c.jpg": []}'),
        ("t.yaml", "a.jpg: [dog, cat]\nb.jpg: cat\nc.jpg:\n"),
        ("t.yml", "a.jpg: cat, dog\nb.jpg: cat\nc.jpg: ''\n"),
    ],
)
def test_maps_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    found = read_map(tmp_path / name)
    assert found.problems == []
    assert {row.image: row.tags for row in found.rows} == {"a.jpg": ("cat", "dog"), "b.jpg": ("cat",), "c.jpg": ()}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.json", '{"a.jpg": "cat", "a.jpg": "dog"}', "the key 'a.jpg' stands twice"),
        ("t.json", "[" * 100_000, "cannot be read"),
        ("t.json", "{", "cannot be read"),
        ("t.yaml", "a: &x [1]\nb: *x\n", "aliases"),
        ("t.yaml", "a.jpg: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
    ],
)
def test_what_is_no_map_is_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=r"a table that works") as caught:
        read_map(tmp_path / name)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[a.jpg]", "holds a list, no map"),
        ("", "holds nothing"),
        ("a.jpg: [1]", "entry 'a.jpg': [1] is no list of texts"),
    ],
)
def test_values_are_checked(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    assert words in read_map(tmp_path / "t.yaml").problems[0]
