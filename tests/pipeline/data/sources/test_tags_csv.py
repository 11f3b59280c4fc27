"""Tables of tags, as spreadsheets and hands write them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.sources.tags_csv import read_tags
from tests.support.sources import (
    SPLIT_HEADER,
    folder,
    notes,
    photos,
    prepare,
    refusal,
    table,
    tags_of,
)

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_tables_are_read_tolerantly() -> None:
    photos("a.jpg", "b, c.jpg", "d.jpg", "e.jpg")
    text = "\ufeffImage , LABELS,photographer,split\r\n\r\n a.jpg , cat | dog|cat ,me, Train \r\n"
    text += '"b, c.jpg" ,"cat",,val,,\r\n "d.jpg","|",,train\r\n,,,\r\ne.jpg,,,val'
    Path("photos/tags.csv").write_bytes(text.encode())
    manifest = prepare(folder())
    assert tags_of(manifest) == {"a": ("cat", "dog"), "d": (), "b, c": ("cat",), "e": ()}
    assert "1 of 2 train images show none" in notes() and "1 of 2 val images show none" in notes()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_numbers_hold_for_all_line_ends(end: str) -> None:
    photos("a.jpg", "b.jpg")
    write = end.join([SPLIT_HEADER, "a.jpg,cat,train", "", '"b.jpg",cat,val', "x.jpg,cat,val"])
    Path("photos/tags.csv").write_bytes(write.encode())
    assert "photos/tags.csv, line 5: image photos/x.jpg not found" in refusal(folder())


def test_tags_that_look_the_same_are_the_same() -> None:
    photos("a.jpg", "b.jpg")
    composed, decomposed = (unicodedata.normalize(form, "éléphant") for form in ("NFC", "NFD"))
    table(f"a.jpg,{composed},train", f"b.jpg,{decomposed},val", header=SPLIT_HEADER)
    assert prepare(folder()).classes == (composed,)
    assert prepare(folder(classes=[decomposed])).classes == (composed,)


def test_equal_duplicates_are_merged_with_a_note() -> None:
    photos("a.jpg", "b.jpg")
    table("a.jpg,cat|dog,train", "b.jpg,cat,val", "a.jpg,dog|cat,train", header=SPLIT_HEADER)
    assert len(prepare(folder()).records) == 2
    assert "photos/tags.csv: 1 rows repeat an earlier one: merged (line 4)" in notes()


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("picture,labels", "line 1: the header 'picture,labels' has 0 columns 'image'"),
        ("image;labels", "has 0 columns 'labels'"),
        ("image,labels,labels", "has 2 columns 'labels'"),
        ("image,labels,split,Split", "has 2 columns 'split'"),
    ],
)
def test_headers_are_checked(header: str, words: str) -> None:
    photos("a.jpg")
    table("a.jpg,cat", header=header)
    message = refusal(folder())
    assert words in message and "it must be image,labels" in message


def test_open_quotation_mark_is_found() -> None:
    photos("a.jpg", "b.jpg", "c.jpg")
    table("a.jpg,cat", 'b.jpg,"cat', "c.jpg,dog")
    assert "photos/tags.csv, line 3: " in (message := refusal(folder()))
    assert "is a quotation mark left open?" in message
    table("a.jpg,cat", 'b.jpg,"' + 200_000 * "x", "c.jpg,dog")
    assert "line 3: field larger than field limit" in refusal(folder())


@settings(max_examples=150, deadline=None)
@given(
    content=st.one_of(st.binary(), st.text(alphabet='image,labels split\n\r"|;\x00é;', max_size=200).map(str.encode))
)
def test_any_bytes_give_rows_or_problems(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("table") / "tags.csv"
    path.write_bytes(content)
    result = read_tags(path)
    assert result.rows or result.problems
    assert all(row.image and row.split in (None, "train", "val") and "" not in row.tags for row in result.rows)
