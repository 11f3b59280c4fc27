"""Personalised PageRank."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from models.propagation.apply import rectified
from models.propagation.rule import Observation
from models.propagation.rules.ppr import Knobs
from tests.support.propagation import assert_same, moved_by, random_attention, random_maps


def test_ppr_is_the_closed_form_on_plain_attention() -> None:
    maps, attention = rectified(random_maps(8, 2, 12, torch.float32)), random_attention(8, 12, 0).float()
    for way in ("pull", "push_row"):
        found = moved_by("ppr", maps, Observation(attention), alpha=0.8, direction=way)
        step = attention / attention.sum(1, keepdim=True)
        inverse = torch.linalg.inv(torch.eye(12) - 0.8 * (step if way == "pull" else step.mT))
        assert_same(found, 0.2 * maps @ inverse.mT)


def test_a_walk_that_never_restarts_is_refused() -> None:
    with pytest.raises(ValidationError, match="no closed form"):
        Knobs(alpha=1)
