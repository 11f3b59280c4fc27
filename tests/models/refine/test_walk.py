"""Properties of the random walk."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.affinity.affinitynet import feature_affinity
from models.affinity.irn import path_affinity
from models.affinity.pairs import Border, Neighbourhood
from models.refine.walk import (
    Mode,
    chebyshev_coefficients,
    irn_walk,
    psa_scores,
    psa_walk,
    random_walk,
    transition_matrix,
    upsample,
)

MODES: tuple[Mode, ...] = ("chebyshev", "steps", "dense")
seeds = st.integers(0, 2**31)


def problem(
    h: int, w: int, seed: int = 0, batch: int = 1, channels: int = 3, radius: int = 5, border: Border = "full"
) -> tuple[Tensor, Tensor]:
    """Random scores and affinities in double precision."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(batch, channels, h, w, dtype=torch.double, generator=generator)
    feature = torch.randn(batch, 4, h, w, dtype=torch.double, generator=generator)
    return scores, feature_affinity(feature, Neighbourhood(radius, border))


def weighted_norm(scores: Tensor, affinity: Tensor, radius: int, beta: float) -> Tensor:
    """Norm in which the bound of the series holds: sqrt(sum_j degree_j score_j^2) of each map."""
    weights = affinity.pow(beta)
    degree = torch.ones_like(scores[:, 0])
    for o, (source, target) in enumerate(Neighbourhood(radius, "full").windows(*scores.shape[-2:])):
        degree[:, *source] += weights[:, o, *source]
        degree[:, *target] += weights[:, o, *source]
    return (scores**2 * degree[:, None]).sum((2, 3)).sqrt()


@pytest.mark.parametrize("border", ["psa", "full"])
@pytest.mark.parametrize("mode", MODES)
def test_constant_map_is_a_fixed_point(mode: Mode, border: Border) -> None:
    scores, affinity = problem(13, 17, border=border)
    constant = torch.full_like(scores, 0.7).float()
    walked = random_walk(constant, affinity.float(), mode=mode)
    torch.testing.assert_close(walked, constant, atol=1e-4, rtol=0)


@pytest.mark.parametrize("mode", MODES)
def test_linear_in_the_scores(mode: Mode) -> None:
    first, affinity = problem(9, 12)
    second, _ = problem(9, 12, seed=1)
    together = random_walk(2 * first - 3 * second, affinity, mode=mode)
    apart = [random_walk(scores, affinity, mode=mode) for scores in (first, second)]
    torch.testing.assert_close(together, 2 * apart[0] - 3 * apart[1])


@pytest.mark.parametrize("axis", [-1, -2])
def test_full_border_commutes_with_mirroring(axis: int) -> None:
    generator = torch.Generator().manual_seed(6)
    scores = torch.rand(1, 2, 11, 14, generator=generator)
    feature = torch.randn(1, 4, 11, 14, generator=generator)
    boundary = torch.rand(1, 11, 14, generator=generator)
    hood = Neighbourhood(5, "full")
    for affinity, source in ((feature_affinity, feature), (path_affinity, boundary)):
        walked = random_walk(scores, affinity(source, hood))
        mirrored = random_walk(scores.flip(axis), affinity(source.flip(axis), hood))
        torch.testing.assert_close(mirrored.flip(axis), walked, atol=1e-5, rtol=0)


@given(
    seeds,
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(0, 300),
    st.sampled_from([0.5, 1e-2, 1e-5, 1e-9]),
    st.sampled_from([0.5, 1.0, 8.0]),
)
@settings(deadline=None, max_examples=60)
def test_series_is_within_its_bound_of_the_power(
    seed: int, h: int, w: int, radius: int, steps: int, tolerance: float, beta: float
) -> None:
    scores, affinity = problem(h, w, seed, radius=radius)
    options: dict[str, Any] = {"radius": radius, "beta": beta, "steps": steps}
    power = random_walk(scores, affinity, mode="dense", **options)
    torch.testing.assert_close(random_walk(scores, affinity, mode="steps", **options), power)
    error = random_walk(scores, affinity, tolerance=tolerance, **options) - power
    bound = tolerance * weighted_norm(scores, affinity, radius, beta)
    assert (weighted_norm(error, affinity, radius, beta) <= bound + 1e-11).all()


@given(st.integers(0, 2000), st.floats(1e-9, 0.9))
@settings(deadline=None, max_examples=60)
def test_coefficients(steps: int, tolerance: float) -> None:
    coefficients = chebyshev_coefficients(steps, tolerance)
    assert math.fsum(coefficients.values()) == pytest.approx(1, abs=1e-12)
    assert all(degree % 2 == steps % 2 for degree in coefficients)
    assert max(coefficients) <= min(steps, math.sqrt(2 * steps * math.log(4 / tolerance)) + 2)
    x = math.cos(1.234)
    value = sum(c * math.cos(degree * 1.234) for degree, c in coefficients.items())
    assert abs(value - x**steps) <= tolerance * (1 + 1e-9) + 1e-12


def test_smooth_graph_against_dense_squaring() -> None:
    generator = torch.Generator().manual_seed(7)
    coarse = torch.randn(1, 11, 6, 8, generator=generator)
    fields = torch.nn.functional.interpolate(coarse, (24, 32), mode="bicubic", align_corners=False)
    affinity, scores = feature_affinity(fields[:, 3:], Neighbourhood(5)), fields[:, :3].sigmoid()
    exact = random_walk(scores.double(), affinity.double(), mode="dense")
    assert max(chebyshev_coefficients(256, 3e-6)) == 76
    series = random_walk(scores.double(), affinity.double(), tolerance=3e-6)
    assert ((series - exact).abs() / exact).max() < 1e-5
    for mode in MODES:
        walked = random_walk(scores, affinity, mode=mode)
        assert ((walked - exact).abs() / exact).max() < 5e-5
        assert torch.equal(walked.argmax(1), exact.argmax(1))


def test_graph_of_the_released_border_rule() -> None:
    affinity = feature_affinity(torch.zeros(1, 1, 47, 63), Neighbourhood(5))
    linked = transition_matrix(affinity, 5)[0] > 0
    degree = linked.sum(0).view(47, 63) - 1
    isolated = [(0, 0), (0, 1), (0, 2), (0, 3), (45, 0), (45, 62), (46, 0), (46, 1), (46, 61), (46, 62)]
    assert [tuple(cell) for cell in (degree == 0).nonzero().tolist()] == isolated
    assert degree.max() == 68
    assert linked.sum() == 163781


def test_graph_of_the_full_border() -> None:
    affinity = feature_affinity(torch.zeros(1, 1, 47, 63), Neighbourhood(5, "full"))
    linked = transition_matrix(affinity, 5)[0] > 0
    degree = linked.sum(0) - 1
    assert (int(degree.min()), int(degree.max()), int(linked.sum())) == (21, 68, 189589)


@pytest.mark.parametrize("mode", MODES)
def test_batch_equals_single_images(mode: Mode) -> None:
    scores, affinity = problem(8, 11, batch=3)
    walked = random_walk(scores, affinity, mode=mode)
    for i in range(3):
        single = random_walk(scores[i : i + 1], affinity[i : i + 1], mode=mode)
        torch.testing.assert_close(walked[i : i + 1], single)


@pytest.mark.parametrize("mode", MODES)
def test_weights_of_pairs_that_leave_the_grid_are_ignored(mode: Mode) -> None:
    scores, affinity = problem(7, 9)
    littered = torch.where(affinity == 0, 5.0, affinity)
    torch.testing.assert_close(
        random_walk(scores, littered, mode=mode, beta=2), random_walk(scores, affinity, mode=mode, beta=2)
    )


@pytest.mark.parametrize("mode", MODES)
def test_no_step_and_no_channel(mode: Mode) -> None:
    scores, affinity = problem(6, 8)
    assert torch.equal(random_walk(scores, affinity, steps=0, mode=mode), scores)
    assert random_walk(scores[:, :0], affinity, mode=mode).shape == (1, 0, 6, 8)


def test_inputs_are_not_changed() -> None:
    scores, affinity = problem(6, 8)
    before = scores.clone(), affinity.clone()
    random_walk(scores, affinity)
    assert torch.equal(scores, before[0])
    assert torch.equal(affinity, before[1])


def test_a_grid_whose_dense_matrix_would_not_fit() -> None:
    scores, affinity = (t.float() for t in problem(180, 240, channels=1))
    walked = random_walk(scores, affinity, steps=16)
    assert walked.shape == scores.shape
    assert scores.min() <= walked.min() <= walked.max() <= scores.max()


@pytest.mark.parametrize(
    "change",
    [{"radius": 4}, {"beta": 0.0}, {"steps": -1}, {"mode": "sparse"}, {"tolerance": 0.0}],
    ids=["radius", "beta", "steps", "mode", "tolerance"],
)
def test_arguments_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    scores, affinity = problem(6, 8)
    with pytest.raises(ValueError, match=r"shape|beta|mode"):
        random_walk(scores, affinity, **change)


@pytest.mark.parametrize(("alpha", "threshold"), [(4, 0.2755), (16, 0.1228), (24, 0.0939), (32, 0.0770)])
def test_background_power_acts_as_a_threshold(alpha: float, threshold: float) -> None:
    cam = torch.tensor([threshold - 1e-3, threshold + 1e-3]).view(1, 1, 1, 2).repeat_interleave(8, -1)
    scores = psa_scores(cam.expand(1, 1, 8, 16), alpha)
    assert scores.argmax(1).flatten().tolist() == [0, 1]


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (40, 41), (33, 64)])
def test_psa_walk_of_any_size(size: tuple[int, int]) -> None:
    h, w = (math.ceil(side / 8) for side in size)
    _, affinity = problem(h, w, border="psa")
    cam = torch.rand(1, 2, *size)
    walked = psa_walk(cam, affinity.float())
    large = upsample(walked, 8, size)
    assert walked.shape == (1, 3, h, w)
    assert large.shape == (1, 3, *size)
    assert torch.isfinite(large).all()


def test_background_may_be_a_constant_inside_the_photograph() -> None:
    cam = torch.rand(1, 2, 16, 20)
    scores, plain = psa_scores(cam, background=0.42), psa_scores(cam)
    assert torch.equal(scores[:, 1:], plain[:, 1:])
    assert torch.allclose(scores[0, 0, :, :2], torch.tensor(0.42))
    assert torch.allclose(scores[0, 0, :, 2], torch.tensor(0.21)), "half of these cells is padding"


def test_psa_walk_without_classes_gives_background() -> None:
    _, affinity = problem(4, 5)
    walked = psa_walk(torch.rand(1, 0, 31, 38), affinity.float())
    large = upsample(walked, 8, (31, 38))
    assert walked.shape == (1, 1, 4, 5)
    assert large.shape == (1, 1, 31, 38)
    assert (large.argmax(1) == 0).all()


@pytest.mark.parametrize(("classes", "size"), [(2, (30, 43)), (0, (30, 43)), (1, (32, 44))])
def test_irn_walk_of_any_size(classes: int, size: tuple[int, int]) -> None:
    boundary, cam = torch.rand(1, 8, 11), torch.rand(1, classes, 8, 11)
    affinity = path_affinity(boundary, Neighbourhood(5, "full"))
    walked, large, _ = irn_walk(cam, boundary, affinity, size)
    assert walked.shape == (1, classes, 8, 11)
    assert large.shape == (1, classes, *size)
    assert not classes or large.max() == 1


def test_irn_walk_of_empty_maps_and_batches() -> None:
    boundary, cam = torch.rand(2, 8, 11), torch.rand(2, 2, 8, 11)
    cam[0] = 0
    affinity = path_affinity(boundary, Neighbourhood(5, "full"))
    _, large, _ = irn_walk(cam, boundary, affinity, (32, 44))
    assert not large[0].any()
    _, single, _ = irn_walk(cam[1:], boundary[1:], affinity[1:], (32, 44))
    torch.testing.assert_close(large[1:], single)


def test_full_border_equals_the_padded_released_rule() -> None:
    boundary, radius = torch.rand(1, 9, 12), 5
    full = path_affinity(boundary, Neighbourhood(radius, "full"))
    padded = torch.nn.functional.pad(boundary, (radius, radius, 0, radius), value=1)
    released = path_affinity(padded, Neighbourhood(radius, "psa"))[..., :9, radius:-radius]
    expected = torch.zeros_like(full)
    for o, (source, _) in enumerate(Neighbourhood(radius, "full").windows(9, 12)):
        expected[:, o, *source] = released[:, o, *source]
    torch.testing.assert_close(full, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mode", MODES)
def test_gpu_equals_cpu(mode: Mode) -> None:
    scores, affinity = (t.float() for t in problem(14, 19, batch=2))
    on_gpu = random_walk(scores.cuda(), affinity.cuda(), mode=mode).cpu()
    torch.testing.assert_close(on_gpu, random_walk(scores, affinity, mode=mode), atol=1e-4, rtol=0)
