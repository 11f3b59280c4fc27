"""A folder of photographs and a table of tags; whatever is wrong is told at once, with file and line."""

from __future__ import annotations

import csv
import io
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.ground_truth import GroundTruth
from pipeline.data.masks import write_mask
from pipeline.data.photographs import read_photograph
from pipeline.run.errors import UserError
from pipeline.run.files import write_text
from tests.support.sources import (
    SPLIT_HEADER,
    folder,
    ground_truth,
    notes,
    photo,
    photos,
    prepare,
    refusal,
    table,
    tags_of,
)

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_folder_becomes_a_manifest() -> None:
    photo("val/b.jpg", size=(5, 7))
    photo("a 1.png", size=(9, 3))
    table("val/b.jpg,dog|cat,val", "a 1.png,cat,train", header=SPLIT_HEADER)
    manifest = prepare(folder())
    assert manifest.classes == ("cat", "dog")
    first, second = manifest.records  # train comes first
    assert (first.id, first.split, first.image, first.size, first.tags) == (
        "a 1",
        "train",
        "a 1.png",
        (3, 9),
        ("cat",),
    )
    assert (second.id, second.image, second.size) == ("val__b", "val/b.jpg", (7, 5))
    assert second.tags == ("cat", "dog") and len(second.sha256) == 64 and second.sha256 != first.sha256
    assert ground_truth() == {"masks": {}, "label_map": None, "tune": [], "sha256": {}}
    assert "no train image has these classes, so they cannot be learned: dog" in notes()
    assert "photographs of each class (train + val), the rarest first: dog 0 + 1, cat 1 + 1" in notes()
    assert notes().startswith("every train photograph shows cat, so tags cannot teach where it is")


def test_names_of_any_script_work() -> None:
    names = ["猫 写真.png", "ü/é — ñ.jpg", "a.b.c.png", "-dash.png", "#1 'x' \"y\".png"]
    photos(*names)
    lines = io.StringIO()
    csv.writer(lines).writerows([name, "кошка|犬", "train" if name[0] == "a" else "val"] for name in names)
    table(lines.getvalue(), header=SPLIT_HEADER)
    manifest = prepare(folder())
    assert sorted(record.image for record in manifest.records) == sorted(names)
    assert {"猫 写真", "ü__é — ñ", "a.b.c"} <= set(tags_of(manifest))
    assert manifest.classes == ("кошка", "犬")


def test_tags_outside_the_chosen_classes_become_background() -> None:
    photos("a.jpg", "b.jpg", "c.jpg")
    table("a.jpg,cat|dog,train", "b.jpg,cat,val", "c.jpg,dog,val", header=SPLIT_HEADER)
    manifest = prepare(folder(classes=["cat"]))
    assert manifest.classes == ("cat",)
    assert tags_of(manifest) == {"a": ("cat",), "b": ("cat",), "c": ()}
    assert "count as background (images): dog (2)" in notes()


def test_classes_keep_the_given_order() -> None:
    photos("a.jpg", "b.jpg")
    table("a.jpg,cat|dog,train", "b.jpg,cat,val", header=SPLIT_HEADER)
    manifest = prepare(folder(classes=["dog", "cat"]))
    assert manifest.classes == ("dog", "cat") and manifest.records[0].tags == ("dog", "cat")


def test_all_may_train() -> None:
    names = [f"{index}.png" for index in range(6)]
    photos(*names)
    table(*(f"{name},cat" for name in names))
    assert {record.split for record in prepare(folder(val_share=0.0)).records} == {"train"}
    assert "no photograph validates" in notes()
    table(*(f"{name},cat,{'val' if name == '5.png' else 'train'}" for name in names), header=SPLIT_HEADER)
    assert [record.split for record in prepare(folder(val_share=0.0)).records] == ["train"] * 5 + ["val"]
    assert "no photograph validates" not in notes()


def test_split_by_hash_depends_on_the_id_alone() -> None:
    names = [f"{index}.jpg" for index in range(200)]
    photos(*names)
    table(*(f"{name},cat" for name in names))
    splits = {record.id: record.split for record in prepare(folder(val_share=0.25)).records}
    table(*(f"{name},cat" for name in reversed(names[50:])))
    again = {record.id: record.split for record in prepare(folder(val_share=0.25)).records}
    assert again == {identity: splits[identity] for identity in again}
    assert 30 <= list(splits.values()).count("val") <= 70


def test_images_and_masks_lie_in_their_folders() -> None:
    photos("jpg/x/a.jpg", "jpg/b.jpg")
    write_mask(Path("photos/png/x/a.png"), np.zeros((4, 6), np.uint8))
    table("x/a.jpg,cat,train", "./b.jpg,cat,val", header=SPLIT_HEADER)
    manifest = prepare(folder(images="jpg", masks="./png"))
    assert [record.image for record in manifest.records] == ["jpg/x/a.jpg", "jpg/b.jpg"]
    assert ground_truth()["masks"] == {"x__a": "png/x/a.png"}
    assert "1 of 2 images have no mask" in notes()


def test_limit_keeps_the_first_of_each_split() -> None:
    photos(*(f"{name}.jpg" for name in "abcdef"))
    lines = [f"{name}.jpg,{'dog' if name > 'd' else 'cat'},{'val' if name in 'be' else 'train'}" for name in "abcdef"]
    table(*lines, header=SPLIT_HEADER)
    manifest = prepare(folder(limit=1))
    assert [record.id for record in manifest.records] == ["a", "b"]
    assert manifest.classes == ("cat", "dog")  # the label order does not depend on the limit


def test_symbolic_links_inside_the_root_are_fine() -> None:
    photos("real/a.jpg", "b.jpg")
    Path("photos/link.jpg").symlink_to("real/a.jpg")
    table("link.jpg,cat,train", "b.jpg,cat,val", header=SPLIT_HEADER)
    assert len(prepare(folder()).records) == 2


def test_all_problems_are_told_at_once_with_file_and_line() -> None:
    photos("good.jpg", "twice.jpg", "same.png", "same.jpg", "d/e.jpg", "d__e.jpg", "../outside.jpg")
    Path("photos/text.jpg").write_text("no photograph")
    Path("photos/link.jpg").symlink_to("../outside.jpg")
    Path("photos/ring.jpg").symlink_to("ring.jpg")
    lines = [
        "good.jpg,cat,train",
        "missing.jpg,cat,train",
        "../outside.jpg,cat,train",
        "/etc/hostname,cat,train",
        "link.jpg,cat,train",
        "twice.jpg,cat,train",
        "twice.jpg,dog|cat,train",
        "same.png,cat,val",
        "same.jpg,cat,val",
        "d/e.jpg,cat,train",
        "d__e.jpg,cat,train",
        "text.jpg,cat,val",
        "good.jpg,cat,val",
        "x.jpg,cat,test",
        "x.jpg,c\tat,train",
        "x.jpg,cat",
        "x.jpg,cat,dog,train",
        ",cat,train",
        "d/../good.jpg,cat,train",
        "ring.jpg,cat,train",
        "d\\e.jpg,cat,train",
        f"{'n' * 300}.jpg,cat,train",
    ]
    table(*lines, header=SPLIT_HEADER)
    with Path("photos/tags.csv").open("ab") as handle:
        handle.write("good.jpg,café,train\n".encode())  # so that the next line is neither UTF-8 nor Windows-1252
        handle.write(b"caf\xe9.jpg,cat,train\n")
    message = refusal(folder(classes=["cat", "zebra"]))
    expected = {
        3: "image photos/missing.jpg not found",
        4: "leads out of photos",
        5: "'/etc/hostname' leads out of photos",
        6: "'./link.jpg' leads out of photos",
        8: "'twice.jpg' stands in line 7 with other labels or another split",
        10: "'same.jpg' and 'same.png' (line 9) have the same id 'same'",
        12: "'d__e.jpg' and 'd/e.jpg' (line 11) have the same id 'd__e'",
        14: "'good.jpg' stands in line 2 with other labels or another split",
        15: "split 'test' is not one of train, val",
        16: "'c\\tat' holds a control character",
        17: "2 fields where the header has 3",
        18: "4 fields where the header has 3; several labels in one field are separated by |",
        19: "the image name is empty",
        20: "'d/../good.jpg' holds '..'",
        21: "",
        22: "folders are separated by /",
        23: "",
        24: "'good.jpg' stands in line 2 with other labels or another split",
        25: "byte 0xe9 is not UTF-8",
    }
    for line, words in expected.items():
        found = [row for row in message.splitlines() if f"photos/tags.csv, line {line}: " in row]
        assert len(found) == 1 and words in found[0], (line, words, found)
    assert "no image in photos/tags.csv has the label 'zebra' (labels there: cat" in message
    assert "photos/text.jpg: is no image" in message
    assert message.count("\n  - ") == len(expected) + 2


def test_tables_that_cannot_be_used_at_all() -> None:
    assert "photos/tags.csv: not found, nor a folder for each class; a table that works:" in refusal(folder())
    photos("a.jpg")
    Path("photos/labels.tsv").touch()
    assert "photos/tags.csv: not found, but there is labels.tsv: name it as data.folder.tags" in refusal(folder())
    Path("photos/tags.csv").write_bytes(b"")
    assert "is empty; a table that works:\n      image,labels\n" in refusal(folder())
    table()
    assert "has a header but no rows" in refusal(folder())
    Path("photos/tags.csv").write_bytes("image,labels\na.jpg,cat\n".encode("utf-16")[:-1])
    assert "begins as UTF-16 and goes on otherwise" in refusal(folder())
    Path("photos/tags.csv").write_bytes(b"PK\x03\x04" + bytes(30))
    assert "is a workbook; save its sheet as CSV UTF-8" in refusal(folder())
    table("a.jpg,cat")
    assert "data.folder.images: photos/pictures is no folder" in refusal(folder(images="pictures"))
    assert "leads out of photos" in refusal(folder(images="../photos/.."))
    assert "data.root = elsewhere: no such folder" in refusal(folder(root="elsewhere"))


def test_mask_folders_that_cannot_be_used() -> None:
    photos("a.jpg", "b.jpg", "empty/x.png")
    table("a.jpg,cat,train", "b.jpg,cat,val", header=SPLIT_HEADER)
    assert "data.folder.masks: photos/masks is no folder" in refusal(folder(masks="masks"))
    assert "empty/b.png and all other masks are missing" in refusal(folder(masks="empty"))
    Path("photos/empty/a.png").symlink_to("/etc/hostname")
    assert "'empty/a.png' leads out of photos" in refusal(folder(masks="empty"))


def test_empty_splits_are_refused() -> None:
    photos("a.jpg")
    table("a.jpg,cat")
    message = refusal(folder())
    assert "none of the 1 images is in the split" in message and "data.folder.val_share = 0.5" in message
    table("a.jpg,cat,train", header=SPLIT_HEADER)
    assert "none of the 1 images is in the split val" in refusal(folder())


def test_changed_masks_change_what_evaluate_depends_on() -> None:
    photos("a.png", "b.png")
    table("a.png,cat,train", "b.png,cat,val", header=SPLIT_HEADER)
    write_mask(Path("photos/masks/a.png"), np.zeros((4, 6), np.uint8))
    manifest = prepare(folder(masks="masks"))
    before = ground_truth()
    assert before["sha256"].keys() == {"masks/a.png"}
    write_mask(Path("photos/masks/a.png"), np.ones((4, 6), np.uint8))
    with pytest.raises(UserError, match=r"a\.png has changed since it was looked at; run `dvc repro --force"):
        GroundTruth(manifest, Path("photos")).read(manifest.records[0])
    prepare(folder(masks="masks"))
    after = ground_truth()
    assert after["masks"] == before["masks"] and after["sha256"] != before["sha256"]
    assert (GroundTruth(manifest, Path("photos")).read(manifest.records[0]) == 1).all()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.full((4, 6), 2, np.uint8), "label 2 in the mask is that of no class"),
        (np.zeros((6, 4), np.uint8), "mask of 4x6 for a photograph of 6x4"),
        (np.full((4, 6), 255, np.uint8), "all 1 masks hold 0 and 255 alone, such as masks/a.png; 255 is void here"),
    ],
)
def test_masks_are_checked_with_the_photographs(labels: np.ndarray, words: str) -> None:
    photos("a.png", "b.png")
    table("a.png,cat,train", "b.png,cat,val", header=SPLIT_HEADER)
    write_mask(Path("photos/masks/a.png"), labels)
    assert words in refusal(folder(masks="masks"))


def test_copies_of_a_photograph_are_said() -> None:
    for name, colour in (("a.png", "red"), ("b.png", "red"), ("c.png", "blue"), ("d.png", "blue"), ("e.png", "green")):
        photo(name, colour=colour)
    table(
        "a.png,cat,train", "b.png,cat,val", "c.png,cat,train", "d.png,dog,train", "e.png,dog,val", header=SPLIT_HEADER
    )
    prepare(folder())
    assert "1 photographs are in train and in val, so that val tells nothing of them, under other names" in notes()
    assert "1 photographs have other tags elsewhere, under other names: c.png is d.png" in notes()


def three_classes(classes: Any = "all") -> np.ndarray:
    """The label that this project gives each label of a mask with cat, dog and emu, as the sorted tags number them."""
    photos("a.png", "b.png")
    table("a.png,dog|emu|cat,train", "b.png,cat,val", header=SPLIT_HEADER)
    write_mask(Path("photos/masks/a.png"), np.array([[0, 1, 2, 3, 255, 0]] * 4, np.uint8))
    manifest = prepare(folder(masks="masks", classes=classes))
    return GroundTruth(manifest, Path("photos")).read(manifest.records[0])[0]


@pytest.mark.parametrize(
    ("classes", "labels"),
    [
        ("all", [0, 1, 2, 3, 255, 0]),
        (["emu"], [0, 0, 0, 1, 255, 0]),
        (["emu", "cat"], [0, 2, 0, 1, 255, 0]),
        (["dog", "emu", "cat"], [0, 3, 1, 2, 255, 0]),
    ],
)
def test_masks_number_classes_in_one_way_whatever_is_chosen(classes: object, labels: list[int]) -> None:
    assert three_classes(classes=classes).tolist() == labels


def test_a_file_beside_the_masks_numbers_their_classes() -> None:
    Path("photos/masks").mkdir()
    Path("photos/masks/classes.txt").write_text("\ufeffemu\r\nfox\r\n\r\ncat\r\ndog\r\n", encoding="utf-8")
    write_mask(Path("photos/masks/b.png"), np.full((4, 6), 5, np.uint8))
    with pytest.raises(UserError, match="label 5 in the mask is that of no class"):
        three_classes(classes=["dog"])
    Path("photos/masks/b.png").unlink()
    assert three_classes(classes=["dog", "emu"]).tolist() == [0, 2, 0, 0, 255, 0]


@pytest.mark.parametrize(
    ("text", "words"),
    [("cat\ndog\n", "emu are not there"), ("cat\ncat\ndog\nemu\n", "stands there twice"), ("\udcff", "is not UTF-8")],
)
def test_numbering_that_cannot_be_used_is_refused(text: str, words: str) -> None:
    Path("photos/masks").mkdir()
    Path("photos/masks/classes.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=rf"photos/masks/classes\.txt: .*{words}"):
        three_classes()


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        (("cat", "Cat"), "the labels 'Cat', 'cat' look alike"),
        (("cat", "cat\u200b"), r"the labels 'cat', 'cat\u200b' look alike"),
        (("cat|cow", '"cat,dog"'), "the label 'cat,dog' holds a comma or a semicolon; labels are separated by |"),
        (("cat|cow", "dog; cat"), "the label 'dog; cat' holds a comma or a semicolon"),
        (("cat", '"chair, wooden"'), "is the label 'chair, wooden' one class or several? Write chair|wooden for"),
        (("cat", "Background"), "a class is named background"),
    ],
)
def test_labels_that_are_hardly_meant_are_refused(tags: tuple[str, str], words: str) -> None:
    photos("a.png", "b.png")
    table(f"a.png,{tags[0]},train", f"b.png,{tags[1]},val", header=SPLIT_HEADER)
    assert words in refusal(folder())


def test_a_comma_in_a_label_is_said() -> None:
    photos("a.png", "b.png")
    table('a.png,"chair, wooden|",train', "b.png,cat,val", header=SPLIT_HEADER)
    assert prepare(folder()).classes == ("cat", "chair, wooden")
    assert "the label 'chair, wooden' holds a comma or a semicolon" in notes()


def test_a_photograph_that_was_replaced_is_noticed_where_it_is_read() -> None:
    photos("a.png", "b.png")
    table("a.png,cat,train", "b.png,cat,val", header=SPLIT_HEADER)
    manifest = prepare(folder())
    read_photograph(Path("photos"), manifest.records[0])
    photo("a.png", colour="blue")
    with pytest.raises(UserError, match=r"a\.png is another one than prepare_data saw; run `dvc repro --force prepare"):
        read_photograph(Path("photos"), manifest.records[0])


def test_names_are_matched_whatever_their_extension_case_and_unicode_form() -> None:
    photos(unicodedata.normalize("NFD", "été.JPG"), "Holiday/IMG_2.jpeg", "c.png", "d.jpg")
    table("été.jpg,cat,train", "holiday/img_2,dog,val", "c.JPG,cat,val", "d.jpg,cat,train", header=SPLIT_HEADER)
    manifest = prepare(folder())
    names = {unicodedata.normalize("NFC", record.image) for record in manifest.records}
    assert names == {"été.JPG", "Holiday/IMG_2.jpeg", "c.png", "d.jpg"}
    assert "3 names differ from those of their files in extension, case or Unicode form" in notes()
    assert "'holiday/img_2' is Holiday/IMG_2.jpeg" in notes()


def test_names_that_may_be_several_photographs_are_refused() -> None:
    photos("a.jpg", "A.png", "b.jpg")
    table("a,cat,train", "b.jpg,cat,val", header=SPLIT_HEADER)
    assert "photos/tags.csv, line 2: 'a' may be A.png or a.jpg; write the name in full" in refusal(folder())


def test_photographs_without_a_row_are_said_but_not_those_that_are_masks() -> None:
    photos("a.jpg", "b.jpg", "x/c.jpg", ".hidden.jpg")
    write_mask(Path("photos/masks/a.png"), np.zeros((4, 6), np.uint8))
    table("a.jpg,cat,train", "./b.jpg,cat,val", header=SPLIT_HEADER)
    prepare(folder(masks="masks"))
    assert "1 of 3 photographs have no row and are left out, such as x/c.jpg" in notes()


def test_labels_that_are_nearly_alike_are_said() -> None:
    photos("a.png", "b.png")
    table("a.png,cat|traffic light,train", "b.png,cats|traffic_light,val", header=SPLIT_HEADER)
    assert len(prepare(folder()).classes) == 4
    assert "tags.csv: are 'cat' and 'cats' one class? If so, write them in one way" in notes().splitlines()
    assert "are 'cat' and 'cats' one class?" in notes() and "are 'traffic light' and 'traffic_light' one" in notes()


def test_tags_may_lie_in_folders_coco_and_maps() -> None:
    photos("train/cat/a.jpg", "train/dog/b.jpg", "val/cat/a.jpg")
    assert tags_of(prepare(folder())) == {"train__cat__a": ("cat",), "train__dog__b": ("dog",), "val__cat__a": ("cat",)}
    write_text(Path("photos/tags.yaml"), "train/cat/a.jpg: [cat, dog]\ntrain/dog/b.jpg: dog\nval/cat/a: cat\n")
    manifest = prepare(folder(tags="tags.yaml"))
    assert tags_of(manifest)["train__cat__a"] == ("cat", "dog") and len(manifest.records) == 3
