"""Saliency maps of another tool: read, refused where they do not fit, hashed, told to stages (I+S)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.knobs import Augmentation
from pipeline import make_masks
from pipeline.config.load import resolve
from pipeline.config.stages import stage_configs
from pipeline.configure import check_folders
from pipeline.data.dataset import SalientViews
from pipeline.data.manifest import Record
from pipeline.data.masks import read_mask
from pipeline.data.outside import OutsideFiles, folder_hash, outside_files
from pipeline.data.saliency import read_saliency, saliency_problems
from pipeline.evaluate import EvaluateConfig, masks_by_threshold
from pipeline.maps.background import with_background
from pipeline.maps.store import CamEntry, shard_path, write_shard
from pipeline.run.errors import UserError
from tests.support.knobs import shipped
from tests.support.project import PHOTOGRAPHS, SIZE, configure, write_photographs
from tests.support.sources import PREPARED, SPLIT_HEADER, photos, prepare, refusal, table
from tests.support.sources import folder as folder_config
from tests.support.stages import run_light

MAPS = Path("saliency")
RECORD = Record("a", "train", "a.png", SIZE[1], SIZE[0], ())


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    MAPS.mkdir()


def write(name: str, values: Any, mode: str = "L") -> None:
    Image.fromarray(np.asarray(values, dtype=np.uint8), mode=mode).save(MAPS / f"{name}.png")


def half(size: tuple[int, int] = SIZE) -> np.ndarray:
    """Full saliency in the right half."""
    levels = np.zeros(size, dtype=np.uint8)
    levels[:, size[1] // 2 :] = 255
    return levels


def files() -> OutsideFiles:
    return outside_files(str(MAPS))


# ---------------------------------------------------------------------------------------------------------------- files


def test_grey_levels_are_shares() -> None:
    write("a", np.broadcast_to(np.arange(SIZE[1]), SIZE))
    found = read_saliency(MAPS, RECORD)
    np.testing.assert_allclose(found[0], np.arange(SIZE[1]) / 255, atol=1e-7)
    assert found.dtype == np.float32 and found.shape == SIZE


def test_maps_that_cannot_be_used_are_named() -> None:
    write("small", half((20, 28)))
    write("colours", np.zeros((*SIZE, 3)), "RGB")
    (MAPS / "text.png").write_text("0 1 2")
    write("good", half())
    records = [
        Record(name, "train", "x", SIZE[1], SIZE[0], ()) for name in ("small", "colours", "text", "lost", "good")
    ]
    lines = saliency_problems(MAPS, records, 2)
    for line, words in zip(lines, ("mask of 28x20", "mode RGB", "no PNG", "saliency map not found"), strict=True):
        assert words in line


def test_prepare_data_looks_at_the_maps_of_the_training_photographs() -> None:
    Path("photos").mkdir()
    photos("a.jpg", "b.jpg")
    table("a.jpg,cat,train", "b.jpg,cat,val", header=SPLIT_HEADER)
    size = Image.open("photos/a.jpg").size[::-1]
    write("a", half((7, 9)))
    assert "a.png: mask of 9x7" in refusal(folder_config(saliency=files()))
    write("a", half(size))
    prepare(folder_config(saliency=files()))
    assert (PREPARED / "manifest.csv").exists(), "a validation photograph needs none"
    shutil.rmtree(PREPARED)
    assert "b.png: saliency map not found" in refusal(folder_config(saliency=files(), saliency_splits=["train", "val"]))


def test_a_folder_without_maps_stops_before_any_work() -> None:
    with pytest.raises(UserError, match=r"data\.saliency = saliency: no such folder, or no such file in it"):
        check_folders(resolve(shipped(data__saliency=str(MAPS))))
    write("a", half())
    check_folders(resolve(shipped(data__saliency=str(MAPS))))


# ----------------------------------------------------------------------------------------------------------- what reads


def test_stages_that_read_maps_are_told_them_and_every_protocol_says_so() -> None:
    write("a", half())
    plain, without = (stage_configs(resolve(shipped(**knobs))) for knobs in ({"data__saliency": str(MAPS)}, {}))
    told = {"folder": str(MAPS), "sha256": folder_hash(MAPS)}
    assert plain["prepare_data"]["saliency"] == plain["make_masks"]["saliency"] == told
    assert plain["evaluate_refined"]["masks"]["saliency"] == told
    both = stage_configs(resolve(shipped(data__saliency=str(MAPS), cams__validation=True)))
    assert (
        both["prepare_data"]["saliency_splits"] == ["train", "val"] and "saliency_splits" not in plain["prepare_data"]
    )
    assert "saliency" not in plain["train_localizer"] | plain["train_classifier"] | plain["extract_cams"]
    esol = stage_configs(resolve(shipped(method="esol", data__saliency=str(MAPS))))
    assert esol["train_localizer"]["saliency"] == told
    for name, config in plain.items():
        if name.startswith("evaluate_"):
            assert config["protocol"]["supervision"].startswith("I+S, maps ")
            assert "supervision" not in without[name]["protocol"]


def test_the_background_is_at_least_what_is_not_salient() -> None:
    maps, saliency = np.full((1, 1, 3), 0.6, dtype=np.float32), np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    own = np.array([[0.2, 0.7, 0.3]], dtype=np.float32)
    for threshold, background, expected in (
        (0.3, None, [1.0, 0.5, 0.3]),
        (None, None, [1.0, 0.5, 0.0]),
        (None, own, [1.0, 0.7, 0.3]),
    ):
        found = with_background(maps, threshold, background, saliency)
        np.testing.assert_allclose(found[0, 0], expected, atol=1e-7)
        np.testing.assert_array_equal(found[1:], maps)


def test_masks_show_classes_only_where_something_is_salient() -> None:
    (record,) = write_photographs(Path(), [("b",)]).records
    maps = torch.full((1, *SIZE), 0.9)
    write_shard(shard_path(Path("data/refined"), 0), [CamEntry(record.id, SIZE, (2,), (maps,), (SIZE,))], {})
    knobs: dict[str, Any] = {"data__name": "folder", "data__root": PHOTOGRAPHS, "bg_thresh": 0.3, "masks__crf": "none"}
    write(record.id, half())
    configure(**knobs, data__saliency=str(MAPS))
    run_light(make_masks)
    np.testing.assert_array_equal(read_mask(Path("data/masks/0.png"), SIZE), half() // 255 * 2)
    configure(**knobs)
    run_light(make_masks)
    assert (read_mask(Path("data/masks/0.png"), SIZE) == 2).all()


def test_saliency_is_seen_at_the_size_that_masks_are_made_at() -> None:
    size = (96, 128)
    (record,) = write_photographs(Path(), [("a",)], [size]).records
    maps = torch.full((1, *size), 0.9)
    write_shard(shard_path(Path("data/refined"), 0), [CamEntry(record.id, size, (1,), (maps,), (size,))], {})
    write(record.id, half(size))
    knobs: dict[str, Any] = {"data__name": "folder", "data__root": PHOTOGRAPHS, "bg_thresh": 0.3, "masks__crf": "none"}
    configure(**knobs, data__saliency=str(MAPS), masks__max_side=64)
    run_light(make_masks)
    assert np.mean(read_mask(Path("data/masks/0.png"), size) != half(size) // 255) < 0.02


def test_maps_that_changed_since_configure_stop_the_stages_that_read_them() -> None:
    write_photographs(Path(), [("b",)])
    write("0", half())
    configure(data__name="folder", data__root=PHOTOGRAPHS, data__saliency=str(MAPS))
    config = EvaluateConfig(bg_thresh=0.3, protocol={}, code={}, masks=make_masks.MakeMasksConfig(saliency=files()))
    write("0", half()[:, ::-1])
    with pytest.raises(UserError, match="the files have changed since `configure`"):
        run_light(make_masks)
    assert config.masks is not None
    with pytest.raises(UserError, match="the files have changed since `configure`"):
        masks_by_threshold("refined", None, None, config.masks, 0)  # type: ignore[arg-type]


def test_views_show_the_saliency_of_what_they_show() -> None:
    def white_where_salient(number: int, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        return np.repeat(half(size)[..., None], 3, axis=2)

    manifest = write_photographs(Path(), [("b",)], paint=white_where_salient)
    write("0", half())
    settings = Augmentation(long_side=[64, 96], crop=64)
    views = SalientViews(manifest, Path(PHOTOGRAPHS), settings, ((0.0,) * 3, (1.0,) * 3), files())
    for seed in range(4):
        sample = views.sample(0, np.random.default_rng(seed))
        assert sample["saliency"].shape == (64, 64)
        assert (sample["saliency"] - sample["image"][0]).abs().gt(0.5).float().mean() < 0.03
        assert set(sample["saliency"].unique().tolist()) == {0.0, 1.0}
