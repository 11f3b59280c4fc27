"""Every data source becomes one checked manifest; whatever is wrong is told at once, with file and line."""

import csv
import io
import json
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline import prepare_data
from pipeline.config.params import PrepareDataConfig, Runtime
from pipeline.data.manifest import Manifest, load_manifest
from pipeline.data.sources import SOURCES, voc2012
from pipeline.data.sources.source import Source
from pipeline.data.sources.tags_csv import read_tags
from pipeline.run.errors import UserError
from pipeline.run.files import write_json, write_text

PREPARED = Path("data/prepared")


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder of its own, with a sub folder `photos` for the data set."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    return tmp_path


def photo(path: str, size: tuple[int, int] = (6, 4), colour: str = "red") -> None:
    (Path("photos") / path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(Path("photos") / path)


def photos(*paths: str) -> None:
    for path in paths:
        photo(path)


def table(*lines: str, header: str = "image,labels") -> None:
    write_text(Path("photos/tags.csv"), "\n".join([header, *lines]) + "\n")


def configuration(name: str, source: dict[str, Any], **knobs: Any) -> PrepareDataConfig:
    given = {"name": name, "root": "photos", "classes": "all", "limit": None, "max_megapixels": 1.0}
    return PrepareDataConfig.model_validate(given | knobs | {"source": source})


def folder(images: str = ".", masks: str | None = None, val_share: float = 0.5, **knobs: Any) -> PrepareDataConfig:
    source = {"tags": "tags.csv", "images": images, "masks": masks, "val_share": val_share}
    return configuration("folder", source, **knobs)


def voc(train_split: str = "train", **knobs: Any) -> PrepareDataConfig:
    source = {"train_split": train_split, "sbd_root": knobs.pop("sbd_root", None)}
    return configuration("voc2012", source | {"download": knobs.pop("download", False)}, **knobs)


def prepare(config: PrepareDataConfig, workers: int = 2) -> Manifest:
    write_json(Path("data/config/prepare_data.json"), config.model_dump(mode="json"))
    runtime = Runtime(root=config.root, device="cpu", precision="float32", processes=1, workers=workers)
    write_json(Path("data/config/runtime.json"), runtime.model_dump())
    prepare_data.main()
    return load_manifest()


def refusal(config: PrepareDataConfig) -> str:
    """The one message that the stage ends with; nothing may have been written."""
    with pytest.raises(UserError) as caught:
        prepare(config)
    assert not PREPARED.exists()
    return str(caught.value)


def notes() -> str:
    return "\n".join(json.loads((PREPARED / "notes.json").read_text(encoding="utf-8")))


def ground_truth() -> dict[str, Any]:
    return json.loads((PREPARED / "ground_truth.json").read_text(encoding="utf-8"))


def tags_of(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    return {record.id: record.tags for record in manifest.records}


SPLIT_HEADER = "image,labels,split"


# ----------------------------------------------------------------------------------------- a folder and a CSV


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
    assert ground_truth() == {"masks": {}, "label_map": None}
    assert notes() == "no train image has these classes, so they cannot be learned: dog"


def test_outputs_have_the_same_bytes_every_time_and_with_any_number_of_workers() -> None:
    names = [f"{index}.png" for index in range(12)]
    photos(*names)
    table(*(f"{name},cat" for name in names))
    prepare(folder(), workers=0)
    first = {path.name: path.read_bytes() for path in PREPARED.iterdir()}
    prepare(folder(), workers=3)
    assert {path.name: path.read_bytes() for path in PREPARED.iterdir()} == first
    assert set(first) == {"manifest.csv", "classes.json", "ground_truth.json", "notes.json"}


def test_size_in_the_manifest_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 5)).save("photos/a.jpg", exif=exif)
    photos("b.jpg")
    table("a.jpg,cat,train", "b.jpg,cat,val", header=SPLIT_HEADER)
    assert prepare(folder()).records[0].size == (8, 5)


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
    photo("png/x/a.png")
    table("x/a.jpg,cat,train", "./b.jpg,cat,val", header=SPLIT_HEADER)
    manifest = prepare(folder(images="jpg", masks="./png"))
    assert [record.image for record in manifest.records] == ["jpg/x/a.jpg", "jpg/b.jpg"]
    assert ground_truth()["masks"] == {"x__a": "png/x/a.png"}
    assert "1 of 2 images have no mask" in notes()


def test_masks_are_not_opened() -> None:
    photos("a.jpg", "b.jpg")
    Path("photos/masks").mkdir()
    Path("photos/masks/a.png").write_text("no mask at all")
    table("a.jpg,cat,train", "b.jpg,cat,val", header=SPLIT_HEADER)
    prepare(folder(masks="masks"))
    assert ground_truth()["masks"] == {"a": "masks/a.png"}


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
        "twice.jpg,dog,train",
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
        18: "4 fields where the header has 3; labels are separated by |",
        19: "the image name is empty",
        20: "'d/../good.jpg' holds '..'",
        21: "",
        22: "folders are separated by /",
        23: "",
        24: "byte 0xe9 is not UTF-8",
    }
    for line, words in expected.items():
        found = [row for row in message.splitlines() if f"photos/tags.csv, line {line}: " in row]
        assert len(found) == 1 and words in found[0], (line, words, found)
    assert "no image in photos/tags.csv has the label 'zebra' (labels there: cat" in message
    assert "photos/text.jpg: is no image" in message
    assert message.count("\n  - ") == len(expected) + 2


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


def test_tables_that_cannot_be_used_at_all() -> None:
    assert "photos/tags.csv: cannot be read (No such file" in refusal(folder())
    Path("photos/tags.csv").write_bytes(b"")
    assert "is empty; its first line is image,labels" in refusal(folder())
    table()
    assert "has a header but no rows" in refusal(folder())
    Path("photos/tags.csv").write_text("image,labels\na.jpg,cat\n", encoding="utf-16")
    assert "is UTF-16; save it as CSV UTF-8" in refusal(folder())
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


def test_data_without_anything_to_learn_are_refused() -> None:
    photos("a.jpg", "b.jpg")
    table("a.jpg,,train", "b.jpg,,val", header=SPLIT_HEADER)
    assert "there are no classes" in refusal(folder())
    table("a.jpg,,train", "b.jpg,cat,val", header=SPLIT_HEADER)
    assert "no train image has a tag" in refusal(folder())
    table("a.jpg,background,train", "b.jpg,cat,val", header=SPLIT_HEADER)
    assert "a class is named background" in refusal(folder())
    table(f"a.jpg,{'|'.join(map(str, range(255)))},train", "b.jpg,1,val", header=SPLIT_HEADER)
    assert "255 classes, but masks hold 254" in refusal(folder())


def test_images_are_all_checked() -> None:
    photo("big.png", size=(1001, 1000))
    noise = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save("photos/cut.jpg")
    Path("photos/cut.jpg").write_bytes(Path("photos/cut.jpg").read_bytes()[:1500])
    Path("photos/empty.jpg").write_bytes(b"")
    table("big.png,cat,train", "cut.jpg,cat,train", "empty.jpg,cat,val", header=SPLIT_HEADER)
    message = refusal(folder())
    assert "photos/big.png: 1001 x 1000 pixels" in message
    assert "photos/cut.jpg: cannot be decoded" in message and "photos/empty.jpg: the file is empty" in message


def test_long_lists_of_problems_are_cut() -> None:
    table(*(f"{index}.jpg,cat" for index in range(100)))
    message = refusal(folder())
    assert message.count("\n  - ") == 40 and message.endswith("... and 60 more")


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


# --------------------------------------------------------------------------------------------------- VOC 2012


def annotation(*objects: str, part: str = "") -> str:
    parts = f"<part><name>{part}</name></part>" if part else ""
    bodies = (f"<object><name>{name}</name><difficult>1</difficult>{parts}</object>" for name in objects)
    return f"<annotation><filename>x.jpg</filename>{''.join(bodies)}</annotation>"


def devkit(
    monkeypatch: pytest.MonkeyPatch,
    train: Iterable[str],
    val: Iterable[str],
    home: str = ".",
    more: Iterable[str] = (),
) -> Path:
    """A VOC folder: `1cat_dog` is an image of a cat and a dog; only those of train and val have masks."""
    place = Path("photos") / home
    train, val = list(train), list(val)
    for split, ids in {"train": train, "val": val}.items():
        write_text(place / f"ImageSets/Segmentation/{split}.txt", "\n".join(ids) + "\n")
        monkeypatch.setitem(voc2012.COUNTS, split, len(ids))
    for identity in [*train, *val, *more]:
        photo(f"{home}/JPEGImages/{identity}.jpg")
        names = [name for name in identity.lstrip("0123456789").split("_") if name]
        write_text(place / f"Annotations/{identity}.xml", annotation(*names, part="head"))
    for identity in [*train, *val]:
        photo(f"{home}/SegmentationClass/{identity}.png")
    return place


def test_voc_tags_come_from_all_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    devkit(monkeypatch, ["2cat_dog", "1person_person"], ["3cow"])
    manifest = prepare(voc())
    assert manifest.classes == voc2012.CLASSES and len(manifest.classes) == 20
    assert tags_of(manifest) == {"2cat_dog": ("cat", "dog"), "1person_person": ("person",), "3cow": ("cow",)}
    assert [record.split for record in manifest.records] == ["train", "train", "val"]
    assert manifest.records[0].image == "JPEGImages/2cat_dog.jpg"
    truth = ground_truth()
    assert truth["label_map"] is None and truth["masks"]["3cow"] == "SegmentationClass/3cow.png"


@pytest.mark.parametrize("home", ["VOC2012", "VOCdevkit/VOC2012"])
def test_voc_is_found_below_the_root(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    devkit(monkeypatch, ["1cat"], ["2cat"], home)
    assert prepare(voc()).records[0].image == f"{home}/JPEGImages/1cat.jpg"
    assert ground_truth()["masks"]["1cat"] == f"{home}/SegmentationClass/1cat.png"


def test_voc_in_two_places_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    devkit(monkeypatch, ["1cat"], ["2cat"])
    devkit(monkeypatch, ["1cat"], ["2cat"], "VOC2012")
    assert "VOC 2012 lies in photos and in photos/VOC2012" in refusal(voc())


def test_voc_subset_of_classes_maps_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    devkit(monkeypatch, ["1cat_dog", "2cow"], ["3dog"])
    manifest = prepare(voc(classes=["dog", "cat"]))
    assert tags_of(manifest) == {"1cat_dog": ("dog", "cat"), "2cow": (), "3dog": ("dog",)}
    labels = ground_truth()["label_map"]
    assert len(labels) == 256 and labels[0] == 0 and labels[255] == 255
    assert labels[voc2012.CLASSES.index("dog") + 1] == 1 and labels[voc2012.CLASSES.index("cat") + 1] == 2
    assert sum(labels[:21]) == 3 and labels[21] == 21
    assert "1 of 2 train images show none" in notes()
    assert "data.classes: 'wolf' is no VOC class" in str(SOURCES["voc2012"](voc(classes=["wolf"])).problems)


def test_voc_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    devkit(monkeypatch, ["3cat", "1dog"], ["2cow", "4cow"])
    Path("photos/JPEGImages/1dog.jpg").unlink()
    assert list(tags_of(prepare(voc(limit=1)))) == ["3cat", "2cow"]


@pytest.mark.parametrize("place", ["", "dataset", "benchmark_RELEASE/dataset"])
def test_train_aug_is_train_and_sbd_without_val(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    devkit(monkeypatch, ["5cat", "1cat"], ["2dog", "3dog"], more=["4cow", "0cow"])
    monkeypatch.setitem(voc2012.COUNTS, "train_aug", 4)
    write_text(Path("sbd") / place / "train.txt", "4cow\n2dog\n1cat\n")
    write_text(Path("sbd") / place / "val.txt", "3dog\n0cow\n")
    manifest = prepare(voc("train_aug", sbd_root="sbd"))
    assert [r.id for r in manifest.records] == ["0cow", "1cat", "4cow", "5cat", "2dog", "3dog"]
    assert set(ground_truth()["masks"]) == {"1cat", "5cat", "2dog", "3dog"}
    assert "2 of 6 images have no mask in SegmentationClass" in notes()


@pytest.mark.parametrize("line", ["{0}", "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png"])
@pytest.mark.parametrize("name", voc2012.AUG_LISTS)
def test_train_aug_from_a_list_beside_train(monkeypatch: pytest.MonkeyPatch, name: str, line: str) -> None:
    place = devkit(monkeypatch, ["5cat"], ["2dog"], more=["4cow"])
    monkeypatch.setitem(voc2012.COUNTS, "train_aug", 2)
    write_text(place / "ImageSets/Segmentation" / name, "\n".join(line.format(i) for i in ("4cow", "5cat", "2dog")))
    assert list(tags_of(prepare(voc("train_aug")))) == ["4cow", "5cat", "2dog"]


def test_train_aug_without_sbd_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    devkit(monkeypatch, ["1cat"], ["2dog"])
    message = refusal(voc("train_aug"))
    assert "photos/sbd holds no train.txt and val.txt" in message and "data.voc2012.sbd_root" in message


def test_other_counts_than_vocs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    devkit(monkeypatch, ["1cat"], ["2dog"])
    monkeypatch.setitem(voc2012.COUNTS, "val", 1449)
    message = refusal(voc(limit=1))
    assert "photos: val has 1 images, VOC 2012 has 1,449" in message and "train has" not in message


def test_voc_problems_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    place = devkit(monkeypatch, ["1cat", "2cat", "3cat", "4wolf", "5cat", "6cat"], ["7dog", "1cat"])
    (place / "Annotations/2cat.xml").unlink()
    (place / "Annotations/3cat.xml").write_text("<annotation><object>")
    (place / "Annotations/5cat.xml").write_bytes(b"<annotation>\xff</annotation>")
    (place / "JPEGImages/6cat.jpg").write_text("no photograph")
    with (place / "ImageSets/Segmentation/val.txt").open("a") as handle:
        handle.write("../..\n")
    message = refusal(voc())
    for words in (
        "Annotations/2cat.xml: annotation cannot be read (",
        "Annotations/3cat.xml: annotation cannot be read (",
        "Annotations/4wolf.xml: 'wolf' is no VOC class",
        "Annotations/5cat.xml: annotation cannot be read (",
        "JPEGImages/6cat.jpg: is no image",
        "ImageSets/Segmentation/val.txt, line 3: '..' is no image id",
        "1 images are in train.txt and in val.txt, such as 1cat",
    ):
        assert words in message


BOMB = """<?xml version="1.0" encoding="{0}"?><!DOCTYPE annotation [<!ENTITY a "cat"><!ENTITY b "&a;&a;">]>
<annotation><object><name>&b;</name></object></annotation>"""


def test_entities_in_annotations_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(BOMB.format("utf-8"))
    with pytest.raises(UserError, match=r"a\.xml: defines a document type or entities"):
        voc2012.annotation_tags(path)
    path.write_text(BOMB.format("utf-16"), encoding="utf-16")
    with pytest.raises(UserError, match=r"a\.xml: annotation cannot be read"):
        voc2012.annotation_tags(path)
    path.write_bytes(BOMB.format("utf-7").replace("<!", "+ADwAIQ-").encode())
    with pytest.raises(UserError, match=r"a\.xml: annotation cannot be read"):
        voc2012.annotation_tags(path)


def labels_root(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """A VOC layout with labels.csv instead of annotations; counts are free there."""
    place = devkit(monkeypatch, ["1", "2"], ["3"])
    for path in (place / "Annotations").iterdir():
        path.unlink()
    (place / "Annotations").rmdir()
    monkeypatch.setitem(voc2012.COUNTS, "train", 1464)
    (place / "labels.csv").write_bytes("\r\n".join(["image,labels", *lines, ""]).encode())


def test_labels_csv_stands_in_for_annotations(monkeypatch: pytest.MonkeyPatch) -> None:
    labels_root(monkeypatch, "3,dog|cat", "2,", "1,cow", "9,bird")
    manifest = prepare(voc(classes=["cat", "cow", "dog"]))
    assert tags_of(manifest) == {"1": ("cow",), "2": (), "3": ("cat", "dog")}


def test_labels_csv_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    labels_root(monkeypatch, "1,wolf")
    message = refusal(voc())
    assert "photos/labels.csv, line 2: 'wolf' is no VOC class" in message
    assert "photos/labels.csv: 2 images of the lists have no row, such as 2, 3" in message


def test_missing_parts_of_voc_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "set data.voc2012.download to true, or unpack VOCtrainval" in refusal(voc())
    assert "data.root = elsewhere" in refusal(voc(root="elsewhere"))
    labels_root(monkeypatch)
    Path("photos/labels.csv").unlink()
    assert "neither Annotations nor labels.csv gives tags" in refusal(voc())
    Path("photos/ImageSets/Segmentation/val.txt").unlink()
    assert "photos/ImageSets/Segmentation/val.txt: list cannot be read" in refusal(voc())


@pytest.mark.parametrize("root", ["photos", "photos/VOCdevkit/VOC2012"])
def test_voc_and_sbd_are_downloaded_where_missing(monkeypatch: pytest.MonkeyPatch, root: str) -> None:
    calls = []

    def fetch_voc(place: str, year: str, image_set: str, download: bool) -> None:
        calls.append((place, year, image_set, download))
        devkit(monkeypatch, ["1cat"], ["2dog"], "VOCdevkit/VOC2012", more=["3cow"])

    def fetch_sbd(place: str, image_set: str, mode: str, download: bool) -> None:
        calls.append((place, mode, image_set, download))
        write_text(Path(place) / "train.txt", "3cow\n")
        write_text(Path(place) / "val.txt", "2dog\n")

    monkeypatch.setattr("torchvision.datasets.VOCSegmentation", fetch_voc)
    monkeypatch.setattr("torchvision.datasets.SBDataset", fetch_sbd)
    monkeypatch.setitem(voc2012.COUNTS, "train_aug", 2)
    for _ in range(2):  # nothing is fetched twice
        manifest = prepare(voc("train_aug", root=root, download=True))
        assert list(tags_of(manifest)) == ["1cat", "3cow", "2dog"]
    assert calls == [("photos", "2012", "train", True), (f"{root}/sbd", "segmentation", "train", True)]


def test_failed_downloads_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.VOCSegmentation", fail)
    monkeypatch.setattr("torchvision.datasets.SBDataset", fail)
    assert "VOC 2012 could not be downloaded into photos (no network)" in refusal(voc(download=True))
    devkit(monkeypatch, ["1cat"], ["2dog"])
    assert "SBD could not be downloaded into photos/sbd" in refusal(voc("train_aug", download=True))


# -------------------------------------------------------------------------------------- sources and the stage


def test_scenes_are_prepared_too() -> None:
    source = {"train": 6, "val": 6, "size": 64, "seed": 0}
    manifest = prepare(configuration("scenes", source, root=None, limit=2))
    assert [record.split for record in manifest.records] == ["train", "train", "val", "val"]
    assert all((PREPARED / "scenes" / record.image).is_file() for record in manifest.records)


def test_ids_are_unique(monkeypatch: pytest.MonkeyPatch) -> None:
    photos("a.jpg", "b.jpg")
    table("a.jpg,cat,train", "b.jpg,cat,val", header=SPLIT_HEADER)
    source = SOURCES["folder"](folder())
    twice = Source(source.records * 2, source.classes)
    monkeypatch.setitem(SOURCES, "folder", lambda _: twice)
    assert "two images have the id 'a'" in refusal(folder())


LISTS = os.environ.get("TAGS2MASKS_LISTS")


@pytest.mark.skipif(LISTS is None, reason="TAGS2MASKS_LISTS names no folder with VOC's lists and image-level labels")
def test_official_lists_give_the_known_counts() -> None:
    lists, place = Path(str(LISTS)), Path("photos/ImageSets/Segmentation")
    place.mkdir(parents=True)
    for name in ("train.txt", "val.txt", "train_aug.txt"):
        (place / name).write_bytes((lists / name).read_bytes())
    aug = (lists / "train_aug.txt").read_text().split()
    val = (lists / "val.txt").read_text().split()
    # SBD's own two lists hold images of VOC val and lack some of VOC train.
    train = set((lists / "train.txt").read_text().split())
    write_text(Path("sbd/train.txt"), "\n".join(identity for identity in aug if identity not in train))
    write_text(Path("sbd/val.txt"), "\n".join(val[::2]))
    Path("photos/labels.csv").write_bytes((lists / "voc12_image_labels.csv").read_bytes())
    for config in (voc("train_aug"), voc("train_aug", sbd_root="sbd")):
        source = SOURCES["voc2012"](config)
        splits = [record.split for record in source.records]
        assert (splits.count("train"), splits.count("val")) == (10582, 1449) and not source.problems
        assert [record.id for record in source.records] == [*aug, *val]
        assert all(record.tags for record in source.records)
    assert len([r for r in SOURCES["voc2012"](voc()).records if r.split == "train"]) == 1464
    Path("photos/labels.csv").unlink()
    Path("photos/Annotations").mkdir()
    problems = SOURCES["voc2012"](voc("train_aug", limit=1)).problems
    assert len(problems) == 2 and all("annotation cannot be read" in problem for problem in problems)
