"""COCO 2014: photographs with objects, contiguous labels, masks drawn from outlines, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask

from models.labels import IGNORE
from pipeline import make_masks
from pipeline.data import packed_masks
from pipeline.data.ground_truth import GroundTruth, Labels
from pipeline.data.manifest import PREPARED, Manifest
from pipeline.data.masks import read_mask
from pipeline.data.sources import coco2014
from pipeline.data.sources.coco2014 import RunLengths, run_lengths
from pipeline.data.sources.source import PrepareDataConfig
from pipeline.evaluate import EvaluateConfig, evaluate
from pipeline.run.errors import UserError
from tests.support.coco import (
    CROWD,
    HEIGHT,
    TRAIN,
    WIDTH,
    box,
    instances,
    name_of,
    rectangle,
    runs,
    write_coco,
    write_instances,
)
from tests.support.project import configure
from tests.support.sources import configuration, ground_truth, notes, prepare, refusal, tags_of
from tests.support.stages import run_light

pytestmark = pytest.mark.usefixtures("empty_folder")

CAR, CAT, TOOTHBRUSH = 1, 2, 3


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_masks, "in_processes", lambda job, *items, **_: list(map(job, *items)))


def coco(official: bool = False, **knobs: Any) -> PrepareDataConfig:
    return configuration("coco2014", {"official": official}, **knobs)


def masks(manifest: Manifest) -> dict[str, Labels]:
    truth = GroundTruth(manifest, Path("photos"))
    return {record.id: truth.read(record) for record in truth.known(manifest)}


def test_photographs_with_objects_and_their_tags() -> None:
    write_coco()
    manifest = prepare(coco())
    assert manifest.classes == ("car", "cat", "toothbrush")
    assert tags_of(manifest) == {
        name_of("train", 1): ("car", "cat"),
        name_of("train", 2): ("car", "toothbrush"),
        name_of("train", 4): ("cat", "toothbrush"),
        name_of("val", 7): ("car",),
        name_of("val", 11): ("cat",),
    }
    assert manifest.records[0].image == f"train2014/{name_of('train', 1)}.jpg"
    assert "1 train and 1 val photographs without objects are left out" in notes()


def test_masks_are_drawn_smaller_objects_above_and_crowds_void() -> None:
    write_coco()
    drawn = masks(prepare(coco()))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:, :8] = CAR
    expected[2:6, 2:6] = CAT
    assert (drawn[name_of("train", 1)] == expected).all()
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:4, 4:] = IGNORE
    expected[:, :8] = CAR
    assert (drawn[name_of("train", 2)] == expected).all()
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:2, :2] = expected[5:, 9:] = CAT
    assert (drawn[name_of("train", 4)] == expected).all(), "an object smaller than a pixel has none"
    assert set(np.unique(drawn[name_of("val", 7)])) == {0, IGNORE}
    assert (drawn[name_of("val", 11)][:, 0] == CAT).all()
    assert "the smaller one wins" in notes()


def test_drawn_masks_are_learned_from_and_scored_as_files_are(monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco()
    manifest = prepare(coco())
    configure(method="supervised", data__name="coco2014", data__root="photos", stages=["make_masks"])
    run_light(make_masks)
    assert GroundTruth(manifest, Path("photos")).root == Path("photos"), "masks lie elsewhere, photographs do not"
    drawn, train = masks(manifest), manifest.split("train")
    learned = {r.id: read_mask(Path(f"data/masks/{r.id}.png"), r.size) for r in train.records}
    assert all((learned[name] == drawn[name]).all() for name in learned) and len(learned) == 3
    config = EvaluateConfig(bg_thresh=None, protocol={}, code={})
    scores = evaluate("masks", train, config, Path("photos"), Path("plots"))
    assert (
        scores["images"] == 3 and scores["miou"] == 1.0 and scores["per_class"].keys() == {"background", "car", "cat"}
    )


def test_objects_of_equal_size_keep_their_order() -> None:
    left, right = box(0, 0, 6, 8), box(3, 0, 9, 8)
    write_coco({1: [{"category_id": 3, "segmentation": [left]}, {"category_id": 17, "segmentation": [right]}]})
    drawn = masks(prepare(coco()))[name_of("train", 1)]
    assert (drawn[:, :6] == CAR).all() and (drawn[:, 6:9] == CAT).all()


def test_masks_are_packed_with_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_masks, "SHARD_IMAGES", 2)
    write_coco()
    folder, drawn = PREPARED / "masks", []
    for _ in range(2):
        manifest = prepare(coco())
        drawn.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert sorted(drawn[0]) == [f"shard-0000{number}.safetensors" for number in range(3)] and drawn[0] == drawn[1]
    truth = ground_truth()
    assert truth["reader"] == "packed" and set(truth["sha256"]) == {f"masks/{name}" for name in drawn[0]}
    path = folder / "shard-00001.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"IDAT", b"IDAX"))
    with pytest.raises(UserError, match=r"shard-00001\.safetensors"):
        masks(manifest)
    path.write_bytes(whole[:40])
    with pytest.raises(UserError, match=r"shard-00001\.safetensors: mask of .* cannot be read"):
        masks(manifest)


def test_classes_left_out_are_background() -> None:
    write_coco()
    manifest = prepare(coco(classes=["toothbrush", "cat"]))
    assert tags_of(manifest)[name_of("train", 1)] == ("cat",)
    assert set(np.unique(masks(manifest)[name_of("train", 1)])) == {0, 2}
    assert "data.classes: 'wolf' is no COCO class (car, cat, toothbrush)" in str(
        coco2014.read(coco(classes=["wolf"]), 0).problems
    )


def test_limit_takes_the_first_ids() -> None:
    write_coco()
    (Path("photos/train2014") / f"{name_of('train', 4)}.jpg").unlink()
    assert list(tags_of(prepare(coco(limit=1)))) == [name_of("train", 1), name_of("val", 7)]


def test_the_official_data_set_has_known_numbers() -> None:
    write_coco()
    message = refusal(coco(official=True))
    assert "instances_train2014.json: 3 photographs have objects, COCO 2014 has 82,081; restore the file" in message
    assert "instances_val2014.json: 2 photographs have objects, COCO 2014 has 40,137" in message
    assert "3 categories, COCO 2014 has 80; restore the file, or set data.coco2014.official to false" in message


def test_official_numbers_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco()
    monkeypatch.setattr(coco2014, "COUNTS", {"train": 3, "val": 2})
    monkeypatch.setattr(coco2014, "CLASSES", 3)
    assert len(prepare(coco(official=True)).records) == 5


def test_missing_photographs_are_told_at_once() -> None:
    write_coco()
    for number in (1, 2):
        (Path("photos/train2014") / f"{name_of('train', number)}.jpg").unlink()
    message = refusal(coco())
    assert all(f"{name_of('train', number)}.jpg: not found" in message for number in (1, 2))


def test_photographs_of_another_size_than_their_outlines_are_refused() -> None:
    write_coco()
    Image.new("RGB", (WIDTH + 1, HEIGHT)).save(f"photos/val2014/{name_of('val', 7)}.jpg")
    assert f"{name_of('val', 7)}.jpg: 13x8 pixels, but its annotations are of 12x8" in refusal(coco())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no file of COCO instances (Invalid JSON: EOF"),
        ("[]", "is no file of COCO instances (Input should be an object"),
        ("\xff", "is no file of COCO instances ("),
        ({"images": [], "annotations": []}, "is no file of COCO instances (categories: Field required)"),
        ({"images": [{"id": 1}], "annotations": {}, "categories": []}, "images.0.file_name: Field required"),
    ],
)
def test_other_files_are_refused_with_one_message(content: Any, message: str) -> None:
    write_coco()
    write_instances("train", content)
    told = refusal(coco())
    assert "photos/annotations/instances_train2014.json: " in told and message in told and told.count("\n") == 0


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    """What the stage says of training instances with something changed."""
    content, _ = write_coco()
    change(content)
    write_instances("train", content)
    return refusal(coco())


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("images", {"file_name": "../../secret.jpg"}, "'../../secret.jpg' is no plain name of a photograph"),
        ("images", {"width": 10**7, "height": 10**7}, "pixels are more than data.max_megapixels = 1"),
        ("images", {"id": 2}, "two images have the same id"),
        ("categories", {"id": 17}, "two categories have the same id"),
        ("categories", {"name": "cat"}, "two categories have the same name"),
        ("categories", {"name": "a|b"}, "categories.0.name: String should match pattern"),
        ("annotations", {"category_id": 4}, "annotation 100: there is no category 4"),
        ("annotations", {"image_id": 99}, "annotation 100: there is no image 99"),
        ("annotations", {"segmentation": [[1, 2, 3, 4, 5]]}, "annotation 100: a polygon has an odd number"),
        ("annotations", {"segmentation": [[0, 0, 1e12, 0, 1, 1]]}, "annotation 100: a polygon lies far outside"),
        ("annotations", {"segmentation": runs(np.ones((3, 3), bool))}, "run lengths of 3x3 for a photograph of 12x8"),
        ("annotations", {"segmentation": {"size": [8, 12], "counts": [90]}}, "do not add up to the 96 pixels"),
        ("annotations", {"segmentation": {"size": [8, 12], "counts": [-4, 100]}}, "do not add up to the 96 pixels"),
        ("annotations", {"segmentation": {"size": [8, 12], "counts": "zzz"}}, "do not add up to the 96 pixels"),
    ],
)
def test_contradictions_are_told_with_their_place(key: str, values: dict[str, Any], message: str) -> None:
    told = changed(lambda content: content[key][0].update(values))
    assert "photos/annotations/instances_train2014.json: " in told and message in told


def test_masks_hold_254_classes() -> None:
    more = [{"id": number, "name": f"c{number}"} for number in range(100, 352)]
    assert "255 categories, but masks hold 254" in changed(lambda content: content["categories"].extend(more))


def test_not_a_number_is_no_coordinate() -> None:
    write_coco()
    content = str(instances("train", TRAIN)).replace("'", '"').replace("[0, 0, 8", "[NaN, 0, 8")
    write_instances("train", content)
    assert "is no file of COCO instances (" in refusal(coco())


def test_both_files_have_the_same_categories() -> None:
    _, content = write_coco()
    content["categories"][0]["name"] = "lorry"
    write_instances("val", content)
    assert "instances_val2014.json: has other categories than instances_train2014.json" in refusal(coco())


def test_missing_parts_say_what_to_do() -> None:
    assert "unpack annotations_trainval2014.zip there" in refusal(coco())
    write_instances("train", instances("train", TRAIN))
    assert "no folder photos/train2014; unpack train2014.zip there" in refusal(coco())
    write_coco()
    Path("photos/annotations/instances_val2014.json").unlink()
    assert "photos/annotations/instances_val2014.json not found" in refusal(coco())


def test_run_lengths_are_the_librarys() -> None:
    draws = np.random.default_rng(0)
    for _ in range(50):
        height, width = (int(side) for side in draws.integers(1, 70, 2))
        pixels = np.asfortranarray(draws.random((height, width)) < draws.random(), dtype=np.uint8)
        known = mask.encode(pixels)["counts"]
        for counts in (known.decode(), runs(pixels.astype(bool))["counts"]):
            assert run_lengths(RunLengths(size=(height, width), counts=counts), (height, width)) == known
    assert runs(rectangle(4, 0, 12, 4)) == CROWD and run_lengths([[1, 1, 2, 2]], (HEIGHT, WIDTH)) == run_lengths(
        RunLengths(size=(HEIGHT, WIDTH), counts=[HEIGHT * WIDTH]), (HEIGHT, WIDTH)
    )


# ------------------------------------------------------------------------------------------------------ official lists

LISTS = os.environ.get("TAGS2MASKS_LISTS")
GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""Ids of categories up to 90 that COCO 2014 leaves out."""


@pytest.mark.skipif(LISTS is None, reason="TAGS2MASKS_LISTS names no folder with COCO's lists of image-level labels")
def test_official_lists_are_found_again() -> None:
    """Instances made of the lists, with COCO's ids of categories, give the known counts, ids and tags."""
    known = [number for number in range(1, 91) if number not in GAPS]
    wanted: dict[str, tuple[str, ...]] = {}
    for split in ("train", "val"):
        lines = [line.split() for line in (Path(str(LISTS)) / f"coco14_{split}_cls.txt").read_text().splitlines()]
        wanted |= {name: tuple(f"c{label}" for label in sorted(map(int, labels))) for name, *labels in lines}
        numbers = [(int(name.rpartition("_")[2]), labels) for name, *labels in lines]
        objects = {
            number: [{"category_id": known[int(label)], "segmentation": []} for label in labels]
            for number, labels in numbers
        }
        content = instances(split, objects)
        content["categories"] = [{"id": number, "name": f"c{label}"} for label, number in enumerate(known)]
        write_instances(split, content)
        (Path("photos") / f"{split}2014").mkdir()
    source = coco2014.read(coco(official=True), 0)
    assert not source.problems and len(source.classes) == 80
    splits = [record.split for record in source.records]
    assert (splits.count("train"), splits.count("val")) == (82081, 40137)
    assert {record.id: record.tags for record in source.records} == wanted
