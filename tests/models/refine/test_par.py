"""Pixel-adaptive refinement: its weights, and what it leaves alone."""

from pathlib import Path

import pytest
import torch

from models.refine.par import PAR
from pipeline.config.load import resolve
from pipeline.maps.store import CamEntry
from pipeline.refine_cams import par_entries
from pipeline.run.runtime import Machine
from tests.support.knobs import shipped

CPU = Machine(Path(), torch.device("cpu"), workers=0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_position_weights() -> None:
    weights = PAR().position_weights()
    assert weights.sum() == pytest.approx(0.01, rel=1e-5)
    straight, diagonal = weights[[1, 3, 4, 6]], weights[[0, 2, 5, 7]]
    torch.testing.assert_close(straight, torch.full((4,), 7.65e-4), rtol=0, atol=1e-6)
    torch.testing.assert_close(diagonal, torch.full((4,), 6.83e-4), rtol=0, atol=1e-6)
    assert weights[16:].max() < 1.41e-4


def test_weights_of_a_pixel_add_up_to_slightly_more_than_one() -> None:
    affinity = PAR().affinity(torch.rand(2, 3, 20, 30, generator=seeded(1)))
    assert affinity.shape == (2, 48, 20, 30)
    torch.testing.assert_close(affinity.sum(1), torch.full((2, 20, 30), 1.01))


def test_constant_images_and_constant_masks() -> None:
    image = torch.full((1, 3, 9, 11), 0.3)
    affinity = PAR().affinity(image)
    assert torch.equal(affinity, affinity[:, :, :1, :1].expand_as(affinity))
    refined = PAR().refine(torch.rand(1, 3, 9, 11, generator=seeded(2)), torch.full((1, 2, 9, 11), 0.5))
    torch.testing.assert_close(refined, torch.full_like(refined, 0.5 * 1.01**10))


def test_par_on_stored_maps_equals_par_beside_a_constant_background() -> None:
    pixels = torch.rand(1, 3, 24, 24, generator=seeded(0))
    maps = torch.rand(1, 2, 24, 24, generator=seeded(1))
    beside = PAR().refine(pixels, torch.cat([torch.full((1, 1, 24, 24), 0.5), maps], dim=1))
    alone = PAR().refine(pixels, maps) / 1.01**10
    assert torch.equal((beside[:, 1:] > beside[:, :1]), (alone > 0.5))


def test_refinement_of_photographs_without_classes() -> None:
    entry = CamEntry("empty", (24, 20), (), (torch.zeros(0, 3, 3),), ((24, 24),))
    config = resolve(shipped(method="toco")).refine
    (refined,) = par_entries(None, torch.rand(1, 3, 24, 20), [entry], config, CPU)
    assert refined.class_ids == () and refined.maps[0].shape == (0, 24, 20)
