"""Lists of classes in text files."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.class_lists import numbered, read_class_list
from pipeline.run.errors import UserError


def test_a_class_stands_on_each_line(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("\ufeffdog\r\n\r\n cafe\u0301 \r\n", encoding="utf-8")
    assert read_class_list(path) == ["dog", "caf\u00e9"]


@pytest.mark.parametrize(("content", "words"), [(b"cat\ncat\n", "stands there twice"), (b"caf\xe9", "is not UTF-8")])
def test_lists_that_cannot_be_read_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "names.txt"
    with pytest.raises(UserError, match=r"names\.txt: cannot be read"):
        read_class_list(path)
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"names\.txt: .*{words}"):
        read_class_list(path)


def test_a_folder_without_a_list_numbers_the_classes_of_the_run(tmp_path: Path) -> None:
    assert numbered(tmp_path, ["cat", "dog"]) == ["cat", "dog"]
    (tmp_path / "classes.txt").write_text("emu\ndog\ncat\n")
    assert numbered(tmp_path, ["cat", "dog"]) == ["emu", "dog", "cat"]
    with pytest.raises(UserError, match="fox are not there"):
        numbered(tmp_path, ["cat", "fox"])
