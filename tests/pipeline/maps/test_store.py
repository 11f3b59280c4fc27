"""The CAM store, background rules, and masks made from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.maps import FUSIONS, fuse_cams
from pipeline.config.params import MakeMasksConfig
from pipeline.make_masks import mask_channels
from pipeline.maps.background import hard_labels, otsu_threshold, with_background
from pipeline.maps.crf import KERNELS, dense_crf, label_energies, softmax_energies
from pipeline.maps.store import (
    CamEntry,
    fused_maps,
    read_entry,
    read_shard,
    read_store,
    shard_path,
    store_index,
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


@given(st.integers(0, 1000))
def test_none_is_the_threshold_one_half(seed: int) -> None:
    maps = np.random.default_rng(seed).random((3, 5, 6), dtype=np.float32)
    by_rule, by_number = (hard_labels(with_background(maps, rule), (2, 4, 6)) for rule in (None, 0.5))
    np.testing.assert_array_equal(by_rule, by_number)


def test_background_map_of_the_method_competes_where_there_is_no_threshold() -> None:
    maps, background = np.full((1, 1, 2), 0.6, np.float32), np.array([[0.7, 0.5]], np.float32)
    np.testing.assert_array_equal(hard_labels(with_background(maps, None, background), (3,)), [[0, 3]])
    np.testing.assert_array_equal(hard_labels(with_background(maps, 0.2, background), (3,)), [[3, 3]])


def test_otsu_parts_two_groups() -> None:
    values = np.concatenate([np.full(60, 0.15), np.full(40, 0.8)]).astype(np.float32).reshape(10, 10)
    assert 0.15 < otsu_threshold(values) < 0.8
    assert np.count_nonzero(hard_labels(with_background(values[None], "otsu"), (1,))) == 40
    assert not hard_labels(with_background(np.zeros((1, 4, 4), np.float32), "otsu"), (1,)).any()


def config(**changes: object) -> MakeMasksConfig:
    base = {
        "crf": None,
        "crf_unary": "labels",
        "unary_labels": None,
        "confidence_pair": None,
        "max_side": 512,
        "bg_thresh": 0.3,
    }
    return MakeMasksConfig.model_validate(base | changes)


def test_confidence_pair_truth_table() -> None:
    maps = np.array([[[0.9, 0.2, 0.01]]], np.float32)
    image = np.zeros((1, 3, 3), np.uint8)
    pair = config(confidence_pair=[0.5, 0.1])
    np.testing.assert_array_equal(mask_channels(image, maps, None, pair), [[1, 255, 0]])
    np.testing.assert_array_equal(mask_channels(image, maps, None, config()), [[1, 0, 0]])


@pytest.mark.parametrize("unary", ["labels", "softmax"])
def test_crf_follows_the_picture(unary: str) -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, 20:] = 255
    maps = np.zeros((1, 40, 40), np.float32)
    maps[0, :, 16:] = 0.9  # four columns too wide
    channels = mask_channels(image, maps, None, config(crf="irn", crf_unary=unary, bg_thresh=0.4))
    np.testing.assert_array_equal(channels, (image[..., 0] > 0).astype(np.uint8))


def test_label_energies() -> None:
    energies = label_energies(np.array([[0, 2]]), 3)
    np.testing.assert_allclose(energies, [[0.3567, 1.8971], [1.8971, 1.8971], [1.8971, 0.3567]], atol=1e-4)
    np.testing.assert_allclose(label_energies(np.array([[0]]), 3, 21)[1:], -np.log(0.3 / 20), atol=1e-6)


@pytest.mark.parametrize("count", [2, 3])
def test_several_unaries_in_one_field_get_what_each_gets_alone(count: int) -> None:
    rng = np.random.default_rng(count)
    image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    image[:, 25:] = 200
    scores = [rng.dirichlet([0.2] * 3, size=40 * 50).T.reshape(3, 40, 50).astype(np.float32) for _ in range(count)]
    unaries = [softmax_energies(stack) for stack in scores[1:]] + [label_energies(np.zeros((40, 50), int), 3, 21)]
    together = dense_crf(image, unaries, KERNELS["psa"])
    for unary, marginals in zip(unaries, together, strict=True):
        (alone,) = dense_crf(image, [unary], KERNELS["psa"])
        np.testing.assert_allclose(marginals, alone, atol=1e-5)
        assert (marginals.argmax(0) == alone.argmax(0)).mean() > 0.999
