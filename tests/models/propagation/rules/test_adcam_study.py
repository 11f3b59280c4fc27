"""A synthetic study. It says nothing about photographs, but shows what of the attention each step of AD-CAM answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.propagation.rule import Observation
from tests.support.propagation import moved_by

SIDE, LAYERS, HEADS, SINKS, FEATURES = 24, 12, 6, 6, 16
GRID = (SIDE, SIDE)
SCENES = 6
LOW, HIGH = 1.0, 2.0


def scene(seed: int, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """Attention (N, N), a class map (1, N) and the object's mask (N,) of a picture that does not exist.

    An elliptic object on two backgrounds, beside a patch that looks like it. Attention follows the similarity of
    noisy features: nearby in shallow layers, everywhere in deep ones, where six tokens draw everyone's attention.
    Noise makes a token resemble itself more than the others of its region. The map peaks on a part of the object and,
    weaker, on the look-alike, under noise of its own.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    centre, radii = (uniform(8, 16), uniform(9, 12)), (uniform(4, 6), uniform(5, 7))
    target = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 <= 1
    top = int(uniform(2, 18))
    double = (y >= top) & (y < top + 4) & (x >= 19) & (x < 23) & ~target
    region = (y > uniform(8, 16)).long().masked_fill(target, 2).masked_fill(double, 3).flatten()
    looks = torch.nn.functional.normalize(normal(4, FEATURES), dim=1)
    looks[3] = torch.nn.functional.normalize(0.7 * looks[2] + 0.7 * looks[3], dim=0)

    places = torch.stack([y.flatten(), x.flatten()], 1).float()
    distance = torch.cdist(places, places) ** 2
    sinks = torch.randperm(SIDE * SIDE, generator=generator)[:SINKS]
    attention = torch.zeros(SIDE * SIDE, SIDE * SIDE)
    for layer in range(LAYERS):
        depth = layer / (LAYERS - 1)
        features = looks[region] + noise * normal(HEADS, SIDE * SIDE, FEATURES) / FEATURES**0.5
        scores = (0.6 + 1.4 * depth) * features @ features.mT - (1 - depth) ** 2 * distance / (2 * 2.5**2)
        scores[:, :, sinks] += 3 * depth
        attention += scores.softmax(-1).sum(0) / (LAYERS * HEADS)

    def blob(row: float, column: float, width: float) -> Tensor:
        return torch.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * width**2))

    row, column = (c + r * uniform(-0.5, 0.5) for c, r in zip(centre, radii, strict=True))
    part = target * blob(row, column, 0.45 * min(radii))
    maps = part + 0.8 * double * blob(top + 1.5, 20.5, 1.5) + 0.2 * normal(SIDE, SIDE)
    return attention, maps.flatten()[None], target.flatten()


def overlap(maps: Tensor, target: Tensor) -> tuple[float, float, float]:
    """IoU at thresholds 0.3 and 0.5 and at the best one, of a map rectified and normalised to [0, 1]."""
    values = maps.relu()[0]
    values = (values - values.min()) / (values.max() - values.min())
    shares = [float(((values >= t) & target).sum() / ((values >= t) | target).sum()) for t in np.arange(1, 100) / 100]
    return shares[29], shares[49], max(shares)


@pytest.fixture(scope="module")
def study() -> dict[float, list[tuple[Tensor, Tensor, Tensor]]]:
    return {noise: [scene(seed, noise) for seed in range(SCENES)] for noise in (LOW, HIGH)}


Study = dict[float, list[tuple[Tensor, Tensor, Tensor]]]


def mean_overlap(study: Study, noise: float, rule: str, **changes: Any) -> tuple[float, float, float]:
    """Means over the scenes of `overlap`."""
    results = []
    for attention, maps, target in study[noise]:
        moved = moved_by(rule, maps, Observation(attention), GRID, **changes)
        results.append(overlap(moved, target))
    at3, at5, best = np.mean(results, axis=0).tolist()
    return at3, at5, best


def test_generator_is_as_described(study: Study) -> None:
    for noise, scenes in study.items():
        for attention, _, target in scenes:
            torch.testing.assert_close(attention.sum(1), torch.ones(SIDE * SIDE))
            assert (attention.sum(0) > 2.5).sum() == SINKS
            assert 0.08 < target.float().mean() < 0.3
        assert mean_overlap(study, noise, "none")[2] < 0.45


def test_noisy_attention_breaks_plain_coupling_but_not_adcam(study: Study) -> None:
    coupled, diffused = ([mean_overlap(study, n, rule)[2] for n in (LOW, HIGH)] for rule in ("transcam", "adcam"))
    twice = mean_overlap(study, HIGH, "adcam", gamma=0, self_loop="keep")[2]
    assert diffused[1] > coupled[1] + 0.1 and diffused[1] > twice + 0.1
    assert coupled[0] - coupled[1] > 0.2
    assert abs(diffused[0] - diffused[1]) < 0.05
    assert min(diffused) > 0.85


def test_agreement_holds_back_false_positives(study: Study) -> None:
    """Against the same diffusion without agreement: the object reaches less of what is not the object."""
    for noise in (LOW, HIGH):
        with_agreement, without = mean_overlap(study, noise, "adcam"), mean_overlap(study, noise, "adcam", gamma=0)
        assert with_agreement[0] > without[0] + 0.05
        assert abs(with_agreement[2] - without[2]) < 0.05  # the order of the tokens is as good without it


def test_an_untreated_diagonal_freezes_the_diffusion(study: Study) -> None:
    frozen = mean_overlap(study, HIGH, "adcam", similarity="cosine", gamma=4, self_loop="keep")
    assert frozen == pytest.approx(mean_overlap(study, HIGH, "none"), abs=0.02)
    assert mean_overlap(study, HIGH, "adcam", similarity="cosine", gamma=4)[2] > 0.7


def test_sinks_collect_what_rows_push(study: Study) -> None:
    for noise in (LOW, HIGH):
        pushed, pulled = mean_overlap(study, noise, "adcam", direction="push_row"), mean_overlap(study, noise, "adcam")
        assert pushed[1] < pulled[1] - 0.3 and pushed[2] > 0.7


def test_more_steps_rank_better_and_spread_further(study: Study) -> None:
    for noise in (LOW, HIGH):
        few, many = mean_overlap(study, noise, "adcam"), mean_overlap(study, noise, "adcam", steps=4)
        assert many[2] > few[2] and many[0] < few[0] - 0.1
