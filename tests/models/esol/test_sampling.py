"""The samplers of ESOL: bounds of offsets, what they read, clipping."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from models.esol.knobs import SamplingKnobs
from models.esol.sampling import Sampler, bilinear_gather, bound_offsets, clip_features, sampled_positions
from tests.support.knobs import words_of

Kernel = Literal["dirac", "trained"]
Clip = Literal["none", "const", "maxfrac", "quantile"]
KERNELS, CLIPS = (words_of(SamplingKnobs, name) for name in ("kernel", "clip"))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# ------------------------------------------------------------------------------------------------------------- offsets


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    side=st.sampled_from([1, 3]),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    reach=st.floats(0.1, 10),
    size=st.sampled_from([0.0, 1e-3, 1.0, 1e3, 1e30]),
)
def test_offsets_stay_within_reach_and_on_the_grid(
    seed: int, side: int, height: int, width: int, reach: float, size: float
) -> None:
    torch.manual_seed(seed)
    offsets = bound_offsets(size * torch.randn(2, 2 * side**2, height, width), reach)
    assert offsets.abs().max() <= reach * (1 + 1e-6)
    cells = [(row, column) for row in range(height) for column in range(width)]
    positions = sampled_positions(offsets, cells, 1) - 0.5
    start = sampled_positions(torch.zeros_like(offsets), cells, 1) - 0.5
    for axis, last in ((0, height - 1), (1, width - 1)):
        assert (positions[..., axis] >= start[..., axis].clamp(max=0) - 1e-5).all()
        assert (positions[..., axis] <= start[..., axis].clamp(min=last) + 1e-5).all()


def test_offsets_start_at_zero_with_slope_one() -> None:
    raw = torch.zeros(1, 18, 4, 5, requires_grad=True)
    offsets = bound_offsets(raw, 1.5)
    offsets.sum().backward()
    assert not offsets.any() and raw.grad is not None and torch.equal(raw.grad, torch.ones_like(raw))


def test_far_displacements_keep_a_gradient() -> None:
    raw = torch.full((1, 2, 9, 9), 3.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(bound_offsets(raw, 1.0).sum(), raw)
    assert (gradient[..., 2:-2, 2:-2] > 0).all()


def test_huge_branches_saturate_without_nan() -> None:
    raw = torch.tensor([torch.inf, -torch.inf]).repeat(1, 9)[..., None, None].expand(1, 18, 7, 7)
    assert bound_offsets(raw, 2.0)[0, :, 3, 3].tolist() == [2.0, -2.0] * 9


def test_sixteen_bits_give_full_precision_offsets() -> None:
    raw = torch.randn(1, 2, 4, 4)
    offsets = bound_offsets(raw.bfloat16(), 2.0)
    assert offsets.dtype == torch.float32
    torch.testing.assert_close(offsets, bound_offsets(raw, 2.0), atol=0.02, rtol=0)


def test_sampled_positions_in_pixels() -> None:
    zero = torch.zeros(1, 2, 4, 6)
    assert sampled_positions(zero, [(0, 0), (3, 5)], 16).tolist() == [[[[8, 8]], [[56, 88]]]]
    moved = zero.clone()
    moved[0, :, 3, 5] = torch.tensor([-0.5, -2.0])
    assert sampled_positions(moved, [(3, 5), (0, 0)], 16).tolist() == [[[[48, 56]], [[8, 8]]]]
    taps = sampled_positions(torch.zeros(1, 18, 4, 6), [(1, 2)], 2)
    assert taps.shape == (1, 1, 9, 2)
    assert taps[0, 0].tolist() == [[y, x] for y in (1, 3, 5) for x in (3, 5, 7)]


# ------------------------------------------------------------------------------------------------------------ samplers


def dirac(channels: int) -> Tensor:
    return nn.init.dirac_(torch.empty(channels, channels, 3, 3))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 6), width=st.integers(1, 6), reach=st.floats(0.1, 4))
def test_gather_is_the_deformable_convolution_with_a_dirac_kernel(
    seed: int, height: int, width: int, reach: float
) -> None:
    torch.manual_seed(seed)
    features, kernel = torch.randn(2, 5, height, width), dirac(5)
    raw = torch.randn(2, 2, height, width)
    offsets = bound_offsets(raw, reach).requires_grad_()
    all_taps = torch.cat([torch.randn(2, 8, height, width), offsets, torch.randn(2, 8, height, width)], 1)
    gathered, convolved = bilinear_gather(features, offsets), deform_conv2d(features, all_taps, kernel, padding=1)
    torch.testing.assert_close(gathered, convolved, rtol=1e-4, atol=1e-5)
    weights = torch.randn_like(gathered)
    (ours,) = torch.autograd.grad((weights * gathered).sum(), offsets)
    (theirs,) = torch.autograd.grad((weights * convolved).sum(), offsets)
    edge = torch.tensor([height - 1, width - 1])[:, None, None]
    at = sampled_positions(offsets, [(y, x) for y in range(height) for x in range(width)], 1) - 0.5
    inner = (at.view(2, height, width, 2).permute(0, 3, 1, 2) < edge) & (height > 1) & (width > 1)
    torch.testing.assert_close(ours[inner], theirs[inner], rtol=1e-3, atol=1e-4)


def test_gather_without_offsets_is_the_input() -> None:
    for height, width in ((1, 1), (1, 7), (33, 47)):
        features = 100 * torch.randn(2, 5, height, width)
        assert torch.equal(bilinear_gather(features, torch.zeros(2, 2, height, width)), features)


def test_gather_of_a_ramp_gives_the_position() -> None:
    ramp = torch.stack(torch.meshgrid(torch.arange(6.0), torch.arange(7.0), indexing="ij"))[None]
    offsets = bound_offsets(torch.randn(1, 2, 6, 7), 3.0)
    torch.testing.assert_close(bilinear_gather(ramp, offsets), ramp + offsets)


def test_cells_of_the_last_row_learn_to_move_inwards() -> None:
    ramp = torch.arange(5.0).view(1, 1, 5, 1).expand(1, 1, 5, 4)
    offsets = torch.zeros(1, 2, 5, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(bilinear_gather(ramp, offsets).sum(), offsets)
    assert torch.equal(gradient[:, 0], torch.ones(1, 5, 4))


@pytest.mark.parametrize("kernel", KERNELS)
def test_samplers_start_as_the_identity(kernel: Kernel) -> None:
    sampler, features = Sampler(8, SamplingKnobs(kernel=kernel)), torch.randn(2, 8, 5, 7)
    offsets = sampler.offsets(features)
    assert offsets.shape == (2, {"dirac": 2, "trained": 18}[kernel], 5, 7) and not offsets.any()
    assert torch.equal(sampler(features, offsets), features)


@pytest.mark.parametrize("kernel", KERNELS)
def test_samplers_compute_in_full_precision_under_autocast(kernel: Kernel) -> None:
    sampler, features = Sampler(8, SamplingKnobs(kernel=kernel, reach=1.0)), torch.randn(2, 8, 5, 7)
    nn.init.normal_(sampler.branch.weight)
    exact = sampler(features, sampler.offsets(features))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = sampler(features.bfloat16(), sampler.offsets(features.bfloat16()))
        assert half.dtype == torch.float32
        assert torch.equal(sampler(features, sampler.offsets(features).zero_()), features)
    assert (half - exact).abs().mean() < 0.05


# ------------------------------------------------------------------------------------------------------------ clipping


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), clip=st.sampled_from(CLIPS), level=st.floats(0.01, 1), cells=st.integers(1, 9))
def test_clipping_only_lowers_and_twice_is_once(seed: int, clip: Clip, level: float, cells: int) -> None:
    torch.manual_seed(seed)
    features, knobs = torch.randn(2, 4, cells, 3).relu(), SamplingKnobs(clip=clip, clip_level=level)
    clipped = clip_features(features, knobs)
    assert (clipped <= features).all() and clipped.shape == features.shape
    assert torch.equal(torch.minimum(features, clipped.amax((2, 3), keepdim=True)), clipped)
    if clip in ("none", "const", "quantile"):
        assert torch.equal(clip_features(clipped, knobs), clipped)


def test_clipping_forms() -> None:
    features = torch.arange(10.0).view(1, 1, 2, 5)

    def top(clip: Clip, level: float) -> float:
        return clip_features(features, SamplingKnobs(clip=clip, clip_level=level)).max().item()

    assert (top("none", 0.5), top("const", 2.5), top("maxfrac", 0.5)) == (9, 2.5, 4.5)
    assert (top("quantile", 0.7), top("quantile", 1.0), top("quantile", 0.01)) == (6, 9, 0)
    assert clip_features(features.half(), SamplingKnobs(clip="quantile", clip_level=0.5)).dtype == torch.float16


def test_clipped_cells_get_no_gradient() -> None:
    features = torch.rand(1, 2, 4, 4, requires_grad=True)
    for clip in ("const", "maxfrac", "quantile"):
        clipped = clip_features(features, SamplingKnobs(clip=clip, clip_level=0.5))
        (gradient,) = torch.autograd.grad(clipped.sum(), features)
        assert not gradient[clipped < features].any() and (gradient[clipped == features] > 0).all()
        assert (clipped < features).any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"reach": 0.0},
        {"clip_level": 0.0},
        {"clip": "quantile", "clip_level": 1.1},
        {"clip": "maxfrac", "clip_level": 2},
    ],
)
def test_impossible_samplers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="|".join(wrong)):
        SamplingKnobs(**wrong)
