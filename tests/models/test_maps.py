"""Resizing and fusing maps."""

from __future__ import annotations

import pytest
import torch

from models.affinity.pairs import reduce_label
from models.maps import FUSIONS, fuse_cams, fuse_logits, min_max, nearest


@pytest.mark.parametrize("factor", [1, 2, 16])
def test_nearest_takes_the_pixel_under_the_centre(factor: int) -> None:
    labels = torch.randint(0, 256, (2, 3 * factor, 5 * factor), dtype=torch.uint8)
    assert torch.equal(nearest(labels, (3, 5)), reduce_label(labels, factor))
    enlarged = labels.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert torch.equal(nearest(labels, enlarged.shape[-2:]), enlarged)


def test_stretching_inside_the_initial_foreground_only() -> None:
    torch.manual_seed(0)
    logits, size, ids = [torch.randn(6, 4, 5), torch.randn(6, 2, 3)], (16, 20), [2, 5]
    extents = [(16, 20), (20, 24)]
    plain = fuse_logits(logits, size, extents, ids)
    assert plain.shape == (3, 16, 20) and plain.dtype == torch.float32
    assert not plain.amin((1, 2)).any() and (plain.amax((1, 2)) > 0.999).all()
    nowhere, everywhere = torch.zeros(8, 10, dtype=torch.uint8), torch.full((8, 10), 255, dtype=torch.uint8)
    assert torch.equal(fuse_logits(logits, size, extents, ids, everywhere), plain)
    raw = fuse_logits(logits, size, extents, ids, nowhere)
    everything = fuse_logits(logits, size, extents, [1, 2, 3, 4, 5], nowhere)
    torch.testing.assert_close(everything.sum(0), torch.ones(size))  # probabilities
    torch.testing.assert_close(raw, everything[[0, 2, 5]])
    half = nowhere.clone()
    half[:, 5:] = 2
    mixed = fuse_logits(logits, size, extents, ids, half)
    assert torch.equal(mixed[..., 10:], plain[..., 10:]) and torch.equal(mixed[..., :10], raw[..., :10])


def test_constant_maps_fuse_without_nan() -> None:
    fused = fuse_logits([torch.zeros(3, 2, 2)], (4, 4), [(4, 4)], [1])
    assert torch.equal(fused, torch.zeros(2, 4, 4))
    assert fuse_logits([torch.zeros(3, 2, 2)], (4, 4), [(4, 4)], []).shape == (1, 4, 4)


def test_maps_are_spread_to_the_unit_interval() -> None:
    maps = torch.stack([torch.linspace(-3, 5, 16), torch.full((16,), 2.0)]).view(1, 2, 4, 4)
    spread = min_max(maps)
    assert spread[0, 0].min() == 0
    assert spread[0, 0].max() == pytest.approx(1, abs=1e-5)
    assert (spread[0, 1] == 0).all()


def test_stores_count_on_the_order_of_the_fusions() -> None:
    assert list(FUSIONS)[:4] == ["max", "minmax", "scores", "toco"]


@pytest.mark.parametrize("name", FUSIONS)
def test_every_fusion_of_non_negative_maps_lies_between_0_and_1(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    maps, extents = [torch.rand(2, side, side, generator=generator) for side in (3, 5)], [(12, 12), (10, 10)]
    fused = FUSIONS[name].scales(maps, (10, 9), extents)
    assert fused.shape == (2, 10, 9) and fused.min() >= 0 and fused.max() <= 1
    assert name == "scores" or fused.amax((1, 2)) == pytest.approx([1, 1], abs=1e-4)


@pytest.mark.parametrize("name", FUSIONS)
def test_mirror_images_give_their_mean_or_their_larger_value(name: str) -> None:
    one, other = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, 4.0]])
    assert FUSIONS[name].mirrors(one, other).tolist() == ([[1, 4]] if name == "toco" else [[0.5, 1]])


def test_fusion_rectifies_every_scale() -> None:
    maps = [torch.tensor([[[1.0]]]), torch.tensor([[[-5.0]]])]
    assert fuse_cams(maps, (1, 1), [(1, 1)] * 2).item() == pytest.approx(1, abs=1e-4)
