"""Tables of tags, as spreadsheets and hands write them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.sources.tags.table import read_table
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
    assert "tags.csv: 1 rows repeat an earlier one: merged (line 4)" in notes().splitlines()


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("picture,labels", "line 1: the header 'picture, labels' names no column of photographs (image, filename,"),
        ("image", "line 1: the header 'image' names no column of labels (labels, tags,"),
        ("image,labels,labels", "has 2 columns 'labels'; keep one"),
        ("image,labels,split,Split", "has 2 columns 'split'; keep one"),
        ("image,words", "none of words holds 0 and 1 alone"),
    ],
)
def test_headers_are_checked(header: str, words: str) -> None:
    photos("a.jpg")
    table("a.jpg,cat", header=header)
    message = refusal(folder())
    assert words in message
    assert "keep one" in message or "a table that works:\n      image,labels\n      IMG_0001.jpg,cat|dog\n" in message


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("image;labels\nö.jpg;cat|dog\nb.jpg;\n", "cp1252"),
        ("sep=;\r\nfilename;tags\r\nö.jpg;cat|dog\r\nb.jpg;\r\n", "cp1252"),
        ("Path\tClasses\tby\nö.jpg\tcat|dog\tme\nb.jpg\t\tyou\n", "utf-16"),
        ("file;labels\nö.jpg;cat, dog\nb.jpg;\nö.jpg;dog, cat\n", "utf-8-sig"),
        ("file,label\nö.jpg,cat\nb.jpg,\nö.jpg,dog\n", "utf-8"),
        ("image,width,dog,cat\nö.jpg,640,1,1\nb.jpg,480,0,0\n", "utf-8"),
        ("image;dog;cat\nö.jpg;x;x\nb.jpg;;\n", "cp1252"),
        ("image,labels\nö.jpg,\"['cat', 'dog']\"\nb.jpg,[]\n", "utf-8"),
    ],
)
def test_tables_as_programs_write_them(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "tags.csv"
    path.write_bytes(text.encode(encoding))
    found = read_table(path)
    assert found.problems == []
    assert {row.image: row.tags for row in found.rows} == {"ö.jpg": ("cat", "dog"), "b.jpg": ()}


def test_what_was_recognised_is_said(tmp_path: Path) -> None:
    path = tmp_path / "tags.csv"
    path.write_bytes("image;labels\nmüller.jpg;cat\nmüller.jpg;dog\n".encode("cp1252"))
    notes = "\n".join(read_table(path).notes)
    assert "its cells are separated by semicolons" in notes
    assert "is not UTF-8; read as Windows-1252: is 'müller.jpg' right?" in notes
    assert "one row per tag: the tags of 1 photographs stand in several rows, such as 'müller.jpg' (cat, dog)" in notes


def test_columns_of_other_words_are_no_classes(tmp_path: Path) -> None:
    path = tmp_path / "tags.csv"
    path.write_text("image,cat,place\na.jpg,1,farm\nb.jpg,0,town\n")
    found = read_table(path)
    assert [row.tags for row in found.rows] == [("cat",), ()]
    assert any("hold other values than 0 and 1, so they are no classes: place" in note for note in found.notes)


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
    result = read_table(path)
    assert result.rows or result.problems
    assert all(row.image and row.split in (None, "train", "val") and "" not in row.tags for row in result.rows)
