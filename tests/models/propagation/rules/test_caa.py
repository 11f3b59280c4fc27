"""CLIP-ES's class-aware affinity."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from models.propagation.apply import rectified
from models.propagation.diffusion import source_boxes
from models.propagation.rule import Observation
from models.propagation.rules.caa import Knobs
from tests.support.propagation import GOLDEN, MAP, assert_same, moved_by, random_attention, random_maps


def test_worked_class_aware_affinity() -> None:
    # The example is doubly stochastic already, so that nothing but the square remains.
    result = moved_by("caa", MAP, Observation(GOLDEN), (2, 2), box_mask=None)
    torch.testing.assert_close(result, torch.tensor([[0.515, 0.507, 0.19, 0.088]]), atol=1e-5, rtol=0)


def test_class_aware_affinity_against_its_definition() -> None:
    maps, attention = rectified(random_maps(8, 2, 12)), random_attention(8, 12, 0)
    boxes = source_boxes(maps, (3, 4), 0.7)
    assert 0 < boxes.sum() < 24
    matrix = attention
    for _ in range(3):
        matrix = matrix / matrix.sum(0, keepdim=True)
        matrix = matrix / matrix.sum(1, keepdim=True)
    matrix = (matrix + matrix.mT) / 2
    expected = torch.stack([(matrix @ matrix * box) @ row for box, row in zip(boxes, maps, strict=True)])
    found = moved_by("caa", maps, Observation(attention), (3, 4), box_mask=0.7)
    torch.testing.assert_close(found, expected.float())


@pytest.mark.parametrize("name", ["adcam", "caa"])
def test_activation_outside_the_boxes_is_no_source_but_a_target(name: str) -> None:
    maps, attention = rectified(random_maps(8, 1, 12, torch.float32)), random_attention(8, 12, 0).float()
    boxes = source_boxes(maps, (3, 4), 0.7)
    found = moved_by(name, maps, Observation(attention), box_mask=0.7)
    inside = moved_by(name, maps * boxes, Observation(attention), box_mask=None)
    assert_same(found, inside)
    assert (found[boxes == 0] > 0).all()


def test_published_knobs() -> None:
    assert Knobs().model_dump() == {"blocks": 8, "steps": 2, "sinkhorn_iters": 3, "box_mask": 0.4}


def test_a_matrix_is_raised_to_a_number() -> None:
    with pytest.raises(ValidationError, match="steps"):
        Knobs.model_validate({"steps": "closed"})
