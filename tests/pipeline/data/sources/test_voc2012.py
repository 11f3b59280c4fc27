"""PASCAL VOC 2012: lists, tags from annotations or a table, augmented training, downloads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.manifest import PREPARED, load_test
from pipeline.data.masks import write_mask
from pipeline.data.sources import voc2012
from pipeline.data.sources.source import PrepareDataConfig
from pipeline.run.errors import UserError
from pipeline.run.files import write_text
from tests.support.sources import (
    ground_truth,
    notes,
    photo,
    prepare,
    refusal,
    tags_of,
    voc,
)

pytestmark = pytest.mark.usefixtures("empty_folder")


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
        write_mask(Path("photos") / home / f"SegmentationClass/{identity}.png", np.zeros((4, 6), np.uint8))
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


def test_the_test_split_has_neither_tags_nor_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    place = devkit(monkeypatch, ["1cat"], ["2dog"], more=["4", "3"])
    for path in place.glob("Annotations/[34].xml"):
        path.unlink()
    before = prepare(voc())
    manifest_bytes = (PREPARED / "manifest.csv").read_bytes()
    assert load_test().records == ()
    assert "ImageSets/Segmentation/test.txt not found, but data.voc2012.test = true" in str(problem(voc(test=True)))
    write_text(place / "ImageSets/Segmentation/test.txt", "4\n3\n")
    monkeypatch.setitem(voc2012.COUNTS, "test", 2)
    assert prepare(voc(test=True)) == before and (PREPARED / "manifest.csv").read_bytes() == manifest_bytes
    test = load_test()
    assert [(record.id, record.tags, record.size) for record in test.records] == [("4", (), (4, 6)), ("3", (), (4, 6))]
    assert set(ground_truth()["masks"]) == {"1cat", "2dog"} and "no mask" not in notes()
    (place / "JPEGImages/3.jpg").unlink()
    monkeypatch.setitem(voc2012.COUNTS, "test", 1456)
    message = str(problem(voc(test=True)))
    assert "test has 2 images, VOC 2012 has 1,456" in message and "JPEGImages/3.jpg: not found" in message


def problem(config: PrepareDataConfig) -> UserError:
    with pytest.raises(UserError) as caught:
        prepare(config)
    return caught.value


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
    assert "data.classes: 'wolf' is no VOC class" in str(voc2012.read(voc(classes=["wolf"]), 0).problems)


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


def test_unpacking_that_did_not_end_is_taken_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def unpack(place: str, fail: bool) -> None:
        calls.append(place)
        devkit(monkeypatch, ["1cat"], ["2dog"], "VOCdevkit/VOC2012", more=["3cow"])
        if fail:
            raise KeyboardInterrupt

    def unpack_sbd(place: str, fail: bool) -> None:
        calls.append(place)
        assert not (Path(place) / "img").exists(), "torchvision moves nothing over it"
        for name in ("img", "benchmark_RELEASE"):
            (Path(place) / name).mkdir(parents=True, exist_ok=True)
        write_text(Path(place) / "train.txt", "3cow\n")
        write_text(Path(place) / "val.txt", "2dog\n")
        if fail:
            raise KeyboardInterrupt

    def run(voc_fails: bool, sbd_fails: bool) -> None:
        monkeypatch.setattr("torchvision.datasets.VOCSegmentation", lambda place, **_: unpack(place, voc_fails))
        monkeypatch.setattr("torchvision.datasets.SBDataset", lambda place, **_: unpack_sbd(place, sbd_fails))
        prepare(voc("train_aug", download=True))

    monkeypatch.setitem(voc2012.COUNTS, "train_aug", 2)
    for fails in ((True, False), (False, True)):
        with pytest.raises(KeyboardInterrupt):
            run(*fails)
    run(False, False)
    run(False, False)
    assert calls == ["photos", "photos", "photos/sbd", "photos/sbd"]


def test_unpacking_that_did_not_end_is_said_where_nothing_may_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    devkit(monkeypatch, ["1cat"], ["2dog"])
    Path("photos/.unpacking").touch()
    assert "unpacking VOC 2012 did not end" in refusal(voc())


def test_failed_downloads_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.VOCSegmentation", fail)
    monkeypatch.setattr("torchvision.datasets.SBDataset", fail)
    assert "VOC 2012 could not be downloaded into photos (no network)" in refusal(voc(download=True))
    devkit(monkeypatch, ["1cat"], ["2dog"])
    assert "SBD could not be downloaded into photos/sbd" in refusal(voc("train_aug", download=True))


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
        source = voc2012.read(config, 0)
        splits = [record.split for record in source.records]
        assert (splits.count("train"), splits.count("val")) == (10582, 1449) and not source.problems
        assert [record.id for record in source.records] == [*aug, *val]
        assert all(record.tags for record in source.records)
    assert len([r for r in voc2012.read(voc(), 0).records if r.split == "train"]) == 1464
    Path("photos/labels.csv").unlink()
    Path("photos/Annotations").mkdir()
    problems = voc2012.read(voc("train_aug", limit=1), 0).problems
    assert len(problems) == 2 and all("annotation cannot be read" in problem for problem in problems)
