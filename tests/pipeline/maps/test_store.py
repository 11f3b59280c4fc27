"""The CAM store: what is written is read, same bytes for same content, fusion of what it holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.maps import FUSIONS, fuse_cams
from pipeline.maps.background import hard_labels, with_background
from pipeline.maps.store import (
    CamEntry,
    fused_maps,
    read_entry,
    read_shard,
    read_store,
    shard_path,
    store_index,
    whole,
    write_shard,
)
from pipeline.run.errors import UserError


def entry(name: str, classes: tuple[int, ...], seed: int = 0) -> CamEntry:
    generator = torch.Generator().manual_seed(seed)
    maps = tuple(torch.randn(len(classes), side, side + 2, generator=generator).half().float() for side in (3, 6))
    background = (
        tuple(torch.rand(side, side + 2, generator=generator).half().float() for side in (3, 6)) if seed else ()
    )
    return CamEntry(name, (40, 50), classes, maps, ((48, 64), (40, 50)), background, fusion=list(FUSIONS)[seed % 3])


def facts(one: CamEntry) -> tuple[object, ...]:
    return one.id, one.size, one.class_ids, one.extents, one.fusion


def equal(one: CamEntry, other: CamEntry) -> bool:
    tensors = [(*e.maps, *e.background) for e in (one, other)]
    same = all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))
    return same and facts(one) == facts(other)


def test_round_trip(tmp_path: Path) -> None:
    entries = [entry("ä/ b", (1, 4)), entry("none", ()), entry("with background", (2,), seed=3)]
    write_shard(shard_path(tmp_path, 0), entries[:2], {"network": "x"})
    write_shard(shard_path(tmp_path, 1), entries[2:], {"network": "x"})
    for read, written in zip(read_store(tmp_path), entries, strict=True):
        assert equal(read, written)
        assert equal(read_entry(store_index(tmp_path)[written.id], written.id), written)


def test_same_content_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_shard(tmp_path / name, [entry("x", (1, 2), 5), entry("y", (3,))], {"b": 1, "a": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_half_precision_moves_labels_by_less_than_a_pixel_in_a_thousand() -> None:
    maps = [torch.randn(2, side, side) for side in (8, 16)]
    labels = [
        hard_labels(with_background(fuse_cams(kept, (200, 200), [(200, 200)] * 2).numpy(), 0.3), (1, 2))
        for kept in (maps, [m.half().float() for m in maps])
    ]
    assert np.mean(labels[0] != labels[1]) < 1e-3


def test_damaged_shard_is_one_clear_error(tmp_path: Path) -> None:
    path = shard_path(tmp_path, 0)
    write_shard(path, [entry("x", (1,))], {})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="damaged"):
        list(read_shard(path))
    path.write_bytes(b"")
    with pytest.raises(UserError, match="damaged"):
        store_index(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="no CAM shards"):
        list(read_store(tmp_path))


def test_fusion_of_silent_and_absent_classes() -> None:
    silent = [-torch.rand(1, 4, 4)]
    assert not fuse_cams(silent, (8, 8), [(8, 8)]).any()
    maps, background = fused_maps(CamEntry("x", (8, 8), (), (torch.zeros(0, 2, 2),), ((8, 8),)), (8, 8))
    assert maps.shape == (0, 8, 8) and background is None
    assert not hard_labels(with_background(maps, 0.2), ()).any()


def test_scores_are_not_normalised_and_the_grid_is_cropped() -> None:
    grid = torch.tensor([[[0.1, 0.3], [0.1, 0.3]]])
    scores = CamEntry("x", (8, 6), (1,), (grid,), ((8, 8),), (1 - grid[0],), fusion="scores")
    maps, background = fused_maps(scores, (8, 6))
    assert maps.shape == (1, 8, 6) and background is not None
    np.testing.assert_allclose(maps[0, 0], [0.1, 0.1, 0.125, 0.175, 0.225, 0.275], atol=1e-6)
    np.testing.assert_allclose(maps[0] + background, 1, atol=1e-6)
    assert fused_maps(scores, (16, 12))[0].shape == (1, 16, 12)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_maps_that_are_not_finite_are_named(tmp_path: Path, bad: float) -> None:
    damaged, behind = entry("x", (1, 4)), entry("y", (2,), seed=3)
    damaged.maps[1][1, 2, 0] = bad
    with pytest.raises(UserError, match="x: the map of class 4 is not finite; the network that made it has diverged"):
        write_shard(tmp_path / "a", [damaged], {})
    behind.background[0][0, 0] = bad
    with pytest.raises(UserError, match="y: the background map is not finite"):
        write_shard(tmp_path / "a", [behind], {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fusion", ["max", "minmax", "toco"])
def test_values_beyond_half_precision_are_scaled_and_fuse_alike(tmp_path: Path, fusion: str) -> None:
    plain = replace(entry("x", (1, 4)), fusion=fusion)
    large = replace(plain, maps=tuple(values * 2.0**20 for values in plain.maps))
    write_shard(shard_path(tmp_path, 0), [large], {})
    (read,) = read_store(tmp_path)
    assert all(torch.isfinite(values).all() for values in read.maps)
    np.testing.assert_allclose(fused_maps(read, read.size)[0], fused_maps(plain, plain.size)[0], atol=2e-3)


def test_shards_that_cannot_be_opened_are_not_whole(tmp_path: Path) -> None:
    path = shard_path(tmp_path, 0)
    assert not whole(path)
    write_shard(path, [entry("x", (1,))], {})
    assert whole(path)
    path.write_bytes(path.read_bytes()[:-10])
    assert not whole(path)


def test_a_flipped_bit_is_found_by_its_checksum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shard_path(tmp_path, 0)
    write_shard(path, [entry("x", (1,))], {})
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"is damaged \(the checksum of x does not fit"):
        read_entry(path, "x")
    assert not whole(path) and "is damaged; it is made anew" in capsys.readouterr().out


def test_no_flipped_bit_gives_other_maps(tmp_path: Path) -> None:
    path = shard_path(tmp_path, 0)
    written = [entry("x", (1, 3)), entry("y", (2,), seed=3)]
    write_shard(path, written, {"rule": "none"})
    data = path.read_bytes()
    for place in range(0, len(data), 5):
        changed = bytearray(data)
        changed[place] ^= 0x10
        path.write_bytes(changed)
        if whole(path):
            found = list(read_shard(path))
            assert [one.id for one in found] == ["x", "y"] and [one.class_ids for one in found] == [(1, 3), (2,)], place


def test_classes_are_scaled_apart(tmp_path: Path) -> None:
    path, maps = shard_path(tmp_path, 0), torch.rand(2, 4, 4) + 0.5
    maps[0] *= 1e10
    write_shard(path, [CamEntry("x", (4, 4), (1, 2), (maps,), ((4, 4),), fusion="max")], {})
    fused, _ = fused_maps(read_entry(path, "x"), (4, 4))
    assert abs(fused[1].max() - 1) < 1e-3 and abs(fused[0].max() - 1) < 1e-3


def test_the_stage_that_wrote_a_damaged_store_is_named(tmp_path: Path) -> None:
    for folder, stage in (
        ("seeds", "extract_cams"),
        ("refined", "refine_cams"),
        ("localizer/epochs/x-01", "train_localizer"),
    ):
        path = shard_path(tmp_path / folder, 0)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"no shard")
        with pytest.raises(UserError, match=f"--force {stage}`"):
            list(read_shard(path))
