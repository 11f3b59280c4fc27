"""Pairs, paths, labels and the losses over pairs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.affinity.affinitynet import LOSS_WEIGHTS, affinity_loss, feature_affinity
from models.affinity.irn import boundary_loss, path_affinity
from models.affinity.pairs import (
    Border,
    Neighbourhood,
    affinity_label,
    half_plane_offsets,
    pair_masks,
    path_cells,
    reduce_label,
)
from pipeline.maps.background import confident_channels

sides = st.integers(1, 12)
borders = st.sampled_from(["psa", "full"])


def sources(hood: Neighbourhood, h: int, w: int) -> int:
    rows, columns = next(hood.windows(h, w))[0]
    return (rows.stop - rows.start) * (columns.stop - columns.start)


@pytest.mark.parametrize(("radius", "count", "cells"), [(5, 34, 242), (10, 152, 2134)])
def test_counts_of_offsets_and_path_cells(radius: int, count: int, cells: int) -> None:
    offsets = half_plane_offsets(radius)
    assert len(offsets) == len({*offsets, *((-dy, -dx) for dy, dx in offsets)}) / 2 == count
    assert sum(len(path_cells(*offset)) for offset in offsets) == cells


def test_short_paths() -> None:
    assert path_cells(0, 1) == ((0, 0), (0, 1))
    assert len(path_cells(1, 1)) == 4
    assert path_cells(0, 0) == ((0, 0),)


@pytest.mark.parametrize(("side", "radius", "count", "pairs"), [(56, 5, 2496, 84864), (128, 10, 13090, 1989680)])
def test_counts_of_sources(side: int, radius: int, count: int, pairs: int) -> None:
    hood = Neighbourhood(radius)
    assert sources(hood, side, side) == count
    assert count * len(hood.offsets) == pairs


def test_radius_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="radius"):
        half_plane_offsets(0)
    assert half_plane_offsets(1) == ()


@given(sides, sides, st.integers(1, 6), borders)
@settings(deadline=None, max_examples=60)
def test_windows_against_a_plain_loop(h: int, w: int, radius: int, border: Border) -> None:
    hood = Neighbourhood(radius, border)
    cells = torch.arange(h * w).view(h, w)
    margin = radius - 1
    for (dy, dx), (source, target) in zip(hood.offsets, hood.windows(h, w), strict=True):
        expected = [
            (y * w + x, (y + dy) * w + x + dx)
            for y in range(h)
            for x in range(w)
            if y + dy < h and 0 <= x + dx < w
            if border == "full" or (y < h - margin and margin <= x < w - margin)
        ]
        assert list(zip(cells[source].flatten(), cells[target].flatten(), strict=True)) == expected


@given(st.integers(0, 2**31), borders)
@settings(deadline=None, max_examples=25)
def test_every_valid_pair_is_in_one_mask(seed: int, border: Border) -> None:
    generator = torch.Generator().manual_seed(seed)
    label = torch.tensor([0, 1, 2, 255])[torch.randint(4, (2, 7, 11), generator=generator)].byte()
    hood = Neighbourhood(3, border)
    masks = pair_masks(label, hood)
    for o, (source, target) in enumerate(hood.windows(7, 11)):
        a, b = label[:, *source], label[:, *target]
        valid = (a < 255) & (b < 255)
        for mask, expected in zip(
            masks,
            (valid & (a == 0) & (b == 0), valid & (a == b) & (a > 0), valid & (a != b)),
            strict=True,
        ):
            assert torch.equal(mask[:, o, *source], expected)
            assert mask[:, o].sum() == expected.sum()


def test_affinity_label_truth_table() -> None:
    # Columns: both foreground; background only when strong; both background; the impossible case; padding.
    low = torch.tensor([[0.1, 0.6, 0.9, 0.2, 0.0], [0.5, 0.5, 0.1, 0.3, 0.0]])
    high = torch.tensor([[0.1, 0.2, 0.9, 0.8, 0.0], [0.5, 0.5, 0.1, 0.3, 0.0]])
    low, high = (m[None, :, None].repeat_interleave(8, -1).expand(1, 2, 8, 40) for m in (low, high))
    label = affinity_label(low, high)
    assert label.flatten().tolist() == [1, 255, 0, 0, 255]


def test_confident_channels_truth_table() -> None:
    strict = np.array([7, 7, 0, 0], dtype=np.uint8)
    loose = np.array([7, 0, 7, 0], dtype=np.uint8)
    assert confident_channels(strict, loose).tolist() == [7, 7, 255, 0]


@pytest.mark.parametrize("size", [(16, 16), (17, 19), (18, 21)])
def test_reduce_label_takes_the_centres(size: tuple[int, int]) -> None:
    label = torch.arange(size[0] * size[1]).view(size)
    reduced = reduce_label(label)
    assert reduced[0].tolist() == [2 * size[1] + x for x in range(2, size[1], 4)]
    assert reduced[:, 0].tolist() == [y * size[1] + 2 for y in range(2, size[0], 4)]


@pytest.mark.parametrize("border", ["psa", "full"])
def test_feature_affinity_against_a_plain_loop(border: Border) -> None:
    hood = Neighbourhood(3, border)
    feature = torch.randn(1, 5, 6, 9, generator=torch.Generator().manual_seed(1))
    for reading, reduce in (("released", Tensor.mean), ("published", Tensor.sum)):
        affinity = feature_affinity(feature, hood, reading)  # type: ignore[arg-type]
        expected = torch.zeros_like(affinity)
        for o, (dy, dx) in enumerate(hood.offsets):
            rows, columns = list(hood.windows(6, 9))[o][0]
            for y in range(rows.start, rows.stop):
                for x in range(columns.start, columns.stop):
                    difference = feature[0, :, y, x] - feature[0, :, y + dy, x + dx]
                    expected[0, o, y, x] = torch.exp(-reduce(difference.abs()))
        torch.testing.assert_close(affinity, expected)


@pytest.mark.parametrize("border", ["psa", "full"])
def test_gradients_of_both_affinities(border: Border) -> None:
    generator = torch.Generator().manual_seed(2)
    hood = Neighbourhood(3, border)
    feature = torch.randn(2, 2, 4, 6, dtype=torch.double, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: feature_affinity(f, hood), feature)
    boundary = torch.rand(2, 4, 6, dtype=torch.double, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda b: path_affinity(b, hood), boundary)


def test_half_precision_features_are_computed_in_single() -> None:
    feature = torch.randn(1, 4, 6, 9).bfloat16()
    assert feature_affinity(feature, Neighbourhood(3)).dtype == torch.float32
    assert path_affinity(torch.rand(1, 6, 9).half(), Neighbourhood(3)).dtype == torch.float32


def labelled(kind: str) -> Tensor:
    label = torch.full((2, 9, 11), {"background": 0, "class": 3, "void": 255}.get(kind, 0), dtype=torch.uint8)
    if kind == "mixed":
        label[:, :, 5:] = 2
    return label


@pytest.mark.parametrize("kind", ["background", "class", "void"])
def test_an_empty_side_is_zero_and_has_no_gradient(kind: str) -> None:
    generator = torch.Generator().manual_seed(3)
    hood, label = Neighbourhood(4), labelled(kind)
    feature = torch.randn(2, 4, 9, 11, generator=generator, requires_grad=True)
    logits = torch.randn(2, 1, 9, 11, generator=generator, requires_grad=True)
    feature_loss = affinity_loss(feature_affinity(feature, hood), pair_masks(label, hood))
    for loss, leaf in ((feature_loss, feature), (boundary_loss(logits, label, hood), logits)):
        present = {"background": loss.bg, "class": loss.fg}.get(kind)
        for term in (loss.bg, loss.fg, loss.neg):
            (gradient,) = torch.autograd.grad(term, leaf, retain_graph=True)
            assert torch.isfinite(gradient).all()
            assert (term > 0 and gradient.any()) if term is present else (term == 0 and not gradient.any())
        assert torch.isfinite(loss.total)


def test_saturated_affinities_keep_loss_and_gradient_finite() -> None:
    hood, label = Neighbourhood(4), labelled("mixed")
    flat = torch.zeros(2, 4, 9, 11, requires_grad=True)
    wild = torch.full((2, 1, 9, 11), 200.0, requires_grad=True)
    feature_loss = affinity_loss(feature_affinity(flat, hood), pair_masks(label, hood))
    for loss, leaf in ((feature_loss, flat), (boundary_loss(wild, label, hood), wild)):
        (gradient,) = torch.autograd.grad(loss.total, leaf)
        assert torch.isfinite(loss.total)
        assert torch.isfinite(gradient).all()


def test_published_loss_is_four_times_the_released_one() -> None:
    hood = Neighbourhood(4)
    feature = torch.randn(2, 4, 9, 11, generator=torch.Generator().manual_seed(4))
    arguments = feature_affinity(feature, hood), pair_masks(labelled("mixed"), hood)
    published = affinity_loss(*arguments, LOSS_WEIGHTS["published"]).total
    torch.testing.assert_close(published, 4 * affinity_loss(*arguments).total)


def test_classes_out_of_range_take_part_in_no_pair() -> None:
    label = labelled("mixed")
    assert not pair_masks(label, Neighbourhood(4), first_ignored=2).neg.any()
    assert pair_masks(label, Neighbourhood(4), first_ignored=3).neg.any()


def test_batch_equals_single_images() -> None:
    generator = torch.Generator().manual_seed(5)
    hood = Neighbourhood(4, "full")
    feature = torch.randn(3, 4, 9, 11, generator=generator)
    boundary = torch.rand(3, 9, 11, generator=generator)
    label = torch.randint(3, (3, 9, 11), generator=generator, dtype=torch.uint8)
    for i in range(3):
        one = slice(i, i + 1)
        assert torch.equal(feature_affinity(feature, hood)[one], feature_affinity(feature[one], hood))
        assert torch.equal(path_affinity(boundary, hood)[one], path_affinity(boundary[one], hood))
        for all_images, single in zip(pair_masks(label, hood), pair_masks(label[one], hood), strict=True):
            assert torch.equal(all_images[one], single)


def test_a_wall_cuts_every_path_across_it() -> None:
    boundary = torch.zeros(1, 9, 13)
    boundary[..., 6] = 1
    hood = Neighbourhood(5, "full")
    affinity = path_affinity(boundary, hood)
    column = torch.arange(13)
    for o, (source, target) in enumerate(hood.windows(9, 13)):
        here, there = column[source[1]], column[target[1]]
        crossing = (here <= 6) & (there >= 6) | (here >= 6) & (there <= 6)
        pairs = affinity[0, o, *source]
        assert not pairs[:, crossing].any()
        assert (pairs[:, (here < 5) & (there < 5)] == 1).all()
