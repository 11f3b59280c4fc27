"""Maps of other programs: every layout gives the scores of the store that it was written from; misfits are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import extract_cams
from pipeline.config.stages import stage_configs
from pipeline.data.manifest import Manifest, Record, load_manifest, save_manifest
from pipeline.data.masks import write_mask
from pipeline.evaluate import EvaluateConfig, evaluate
from pipeline.maps.imported import ForeignMaps, grid_side
from pipeline.maps.store import CamEntry, fused_maps, read_store, shard_path, write_shard
from pipeline.run.errors import UserError
from tests.support.project import PHOTOGRAPHS, SIZE, TAGS, configure, write_masks, write_photographs
from tests.support.stages import run
from tests.support.store import write_store

FOREIGN, SEEDS = Path("foreign"), Path("data/seeds")
CONFIG = EvaluateConfig(bg_thresh=0.3, protocol={"method": "cam", "crf": None}, code={})
KNOBS: dict[str, Any] = {"data__name": "folder", "data__root": PHOTOGRAPHS}
HELD_OUT = "6"
Maps = np.ndarray


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """Photographs with masks, the last of them for validation, and maps of a network of the others."""
    monkeypatch.chdir(tmp_path)
    manifest = write_photographs(Path(), [*TAGS, ("a", "b")], val=1)

    def half(number: int, record: Record) -> np.ndarray:
        labels = np.zeros(record.size, dtype=np.uint8)
        labels[:, number * 6 :] = max(manifest.class_ids(record), default=0)
        return labels

    write_masks(Path(), manifest, half)
    write_store(SEEDS, seed=0)
    write_shard(shard_path(SEEDS, 0), [entry for entry in read_store(SEEDS) if entry.id != HELD_OUT], {})
    FOREIGN.mkdir()
    return manifest


def psa(name: str, ids: list[int], maps: Maps) -> None:
    """PSA, SEAM and MCTformer: a dictionary of numbers from 0 and full-size maps."""
    np.save(FOREIGN / f"{name}.npy", {number - 1: one for number, one in zip(ids, maps, strict=True)})  # type: ignore[arg-type]


def seam(name: str, ids: list[int], maps: Maps) -> None:
    """Min-max normalisation leaves values a little below 0."""
    psa(name, ids, (maps - 1e-5).astype(np.float64))


def irn(name: str, ids: list[int], maps: Maps) -> None:
    """IRN's `make_cam`: keys and strided maps are tensors."""
    keys, strided = torch.tensor(ids) - 1, torch.from_numpy(maps[:, ::4, ::4].copy())
    content = {"keys": keys, "cam": strided, "high_res": maps}
    np.save(FOREIGN / f"{name}.npy", content)  # type: ignore[arg-type]


def from_one(name: str, ids: list[int], maps: Maps) -> None:
    np.save(FOREIGN / f"{name}.npy", {np.int64(number): one for number, one in zip(ids, maps, strict=True)})  # type: ignore[arg-type]


def npz(name: str, ids: list[int], maps: Maps) -> None:
    members = {str(number - 1): one for number, one in zip(ids, maps, strict=True)}
    np.savez(FOREIGN / f"{name}.npz", **members)


def npz_keys(name: str, ids: list[int], maps: Maps) -> None:
    """Maps of classes that no tag names are there as well."""
    np.savez(FOREIGN / f"{name}.npz", keys=np.array([*ids, 9]) - 1, cam=np.concatenate([maps, np.ones_like(maps[:1])]))


def write(layout: Callable[[str, list[int], Maps], None], manifest: Manifest) -> None:
    """The maps of the store in another program's files, none of photographs without a tag."""
    for entry in read_store(SEEDS):
        if entry.class_ids:
            layout(entry.id, list(entry.class_ids), fused_maps(entry, entry.size)[0])


def scores(manifest: Manifest) -> dict[str, Any]:
    return evaluate("seeds", manifest.split("train"), CONFIG, Path(PHOTOGRAPHS), Path("plots"))


def imported(**knobs: Any) -> list[CamEntry]:
    configure(**KNOBS, cams__source="import", cams__folder=str(FOREIGN), **knobs)
    run(extract_cams)
    return list(read_store(SEEDS))


@pytest.mark.parametrize("layout", [psa, seam, irn, from_one, npz, npz_keys])
def test_every_layout_gives_the_scores_of_the_store(
    manifest: Manifest, layout: Callable[[str, list[int], Maps], None]
) -> None:
    Path("plots").mkdir()
    expected = scores(manifest)
    write(layout, manifest)
    imported(cams__first_id=int(layout is from_one))
    found = scores(manifest)
    for key in ("miou", "foreground_miou", "precision", "recall"):
        assert found[key] == pytest.approx(expected[key], abs=1e-3), key
    assert found["oracle"]["miou"] == pytest.approx(expected["oracle"]["miou"], abs=1e-3)
    assert 0.2 < found["miou"] < 0.9 and found["images"] == 6


def test_the_store_holds_all_photographs_of_its_split_and_only_their_tags(manifest: Manifest) -> None:
    write(npz_keys, manifest)
    npz_keys(HELD_OUT, [1, 2], np.ones((2, *SIZE)))
    found = {entry.id: entry for entry in imported(cams__validation=True)}
    assert found.keys() == {record.id for record in manifest.split("train").records}
    assert {name: entry.class_ids for name, entry in found.items()} == {
        record.id: tuple(manifest.class_ids(record)) for record in manifest.split("train").records
    }
    (held_out,) = read_store(Path("data/validation/seeds"))
    assert held_out.class_ids == (1, 2) and not any(Path("data/rules").iterdir())


def test_strided_maps_cover_whole_strides(manifest: Manifest) -> None:
    assert [grid_side(375, cells) for cells in (375, 94, 24, 187, 1, 500)] == [375, 376, 384, 375, 375, 375]
    for record in manifest.records:
        ids = manifest.class_ids(record)
        np.savez(FOREIGN / f"{record.id}.npz", keys=np.array(ids) - 1, cam=np.ones((len(ids), 10, 4)))
    entry = imported()[0]
    assert entry.size == SIZE and entry.maps[0].shape == (1, 10, 4) and entry.extents == ((40, 56),)


def test_numbers_are_those_of_a_list_beside_the_files(manifest: Manifest) -> None:
    (FOREIGN / "classes.txt").write_text("background?\nb\n\na\n", encoding="utf-8")
    for entry in read_store(SEEDS):
        numbers = [{1: 2, 2: 1}[number] + 1 for number in entry.class_ids]
        if numbers:
            psa(entry.id, numbers, np.stack([np.full(SIZE, number / 10) for number in entry.class_ids]))
    for entry in imported():
        assert [round(float(one.mean()), 2) for one in entry.maps[0]] == [number / 10 for number in entry.class_ids]


def test_maps_of_large_photographs_are_kept_small(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"0": np.ones((2048, 1024), dtype=np.float32)})  # type: ignore[arg-type]
    foreign = ForeignMaps(tmp_path, 0, ["a"], ["a"])
    entry = foreign.entry(Record("a", "train", "a.png", 1024, 2048, ("a",)), [1])
    assert entry.maps[0].shape == (1, 1024, 512) and entry.extents == ((2048, 1024),)


MISFITS: dict[str, dict[str, Any]] = {
    "no map of the tag a \\(number 0\\); the numbers there are 1": {"1": np.ones(SIZE)},
    "it holds maps; maps stand under numbers": {"maps": np.ones(SIZE)},
    "2 keys, but cam has the shape": {"keys": np.arange(2), "cam": np.ones((1, *SIZE))},
    "has the shape \\(40,\\)": {"0": np.ones(40)},
    "is int64; maps are floating-point": {"0": np.ones(SIZE, dtype=np.int64)},
    "is not finite": {"0": np.full(SIZE, np.nan)},
    "reaches 7; maps are taken as they are": {"0": np.full(SIZE, 7.0)},
}


@pytest.mark.parametrize("words", MISFITS)
def test_maps_that_cannot_be_used_are_named(manifest: Manifest, words: str) -> None:
    write(npz, manifest)
    np.savez(FOREIGN / "0.npz", **MISFITS[words])
    (FOREIGN / "1.npz").unlink()
    before = sorted(SEEDS.iterdir())
    with pytest.raises(UserError, match=f"(?s)cams.folder = foreign.*0.npz: .*{words}.*no 1.npy or .npz"):
        imported()
    assert sorted(SEEDS.iterdir()) == before, "what was there is whole"


def test_maps_that_changed_since_configure_stop_the_stage(manifest: Manifest) -> None:
    write(npz, manifest)
    params = configure(**KNOBS, cams__source="import", cams__folder=str(FOREIGN))
    first = stage_configs(params)["extract_cams"]["imported"]["sha256"]
    np.savez(FOREIGN / "0.npz", **{"0": np.zeros(SIZE)})  # type: ignore[arg-type]
    assert stage_configs(params)["extract_cams"]["imported"]["sha256"] != first
    with pytest.raises(UserError, match=r"cams\.folder = foreign: the files have changed"):
        run(extract_cams)


def test_a_link_that_leaves_the_folder_is_refused(manifest: Manifest) -> None:
    write(npz, manifest)
    (FOREIGN / "0.npz").rename("elsewhere.npz")
    (FOREIGN / "0.npz").symlink_to(Path("elsewhere.npz").resolve())
    with pytest.raises(UserError, match="leads out of foreign"):
        imported()


def test_without_maps_every_store_is_empty(manifest: Manifest) -> None:
    masks = Path("masks")
    write_mask(masks / "0.png", np.zeros(SIZE, dtype=np.uint8))
    configure(**KNOBS, masks__source="import", masks__folder=str(masks))
    run(extract_cams)
    assert not any(SEEDS.iterdir()) and not any(Path("data/validation/seeds").iterdir())
    Path("plots").mkdir()
    found = scores(manifest)
    assert found["images"] == 0 and "miou" not in found and found["coverage"] == {}


def test_only_chosen_classes_are_taken(manifest: Manifest) -> None:
    write(psa, manifest)
    (FOREIGN / "classes.txt").write_text("a\nb\n", encoding="utf-8")
    save_manifest(Path("data/prepared"), Manifest(load_manifest().records, ("b",)))
    assert {entry.class_ids for entry in imported()} == {(), (1,)}
