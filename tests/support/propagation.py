"""Attention, activation and knobs that the tests of propagation rules share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import torch
from pydantic import ValidationError
from torch import Tensor

from models.propagation.apply import propagate
from models.propagation.rule import Observation, RuleKnobs
from models.propagation.rules import load_rule, rule_names

RULES = {name: load_rule(name) for name in rule_names()}
SELF_LOOPS = ("rowmax", "keep", "zero", "lazy:0.7")

GOLDEN = torch.tensor([[0.5, 0.4, 0.1, 0], [0.4, 0.5, 0.1, 0], [0.1, 0.1, 0.4, 0.4], [0, 0, 0.4, 0.6]])
MAP = torch.tensor([[1, 0.2, 0.1, 0]])


def random_attention(seed: int, n: int, sparse: float = 0.3, dtype: torch.dtype = torch.float64) -> Tensor:
    """Attention with a part of its mass on class tokens; entries are zero with probability `sparse`."""
    generator = torch.Generator().manual_seed(seed)
    attention = (2 * torch.randn(n, n, dtype=torch.float64, generator=generator)).softmax(1)
    kept = torch.rand(n, n, generator=generator) >= sparse
    return (0.9 * attention * kept).to(dtype)


def random_maps(seed: int, classes: int, n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.randn(classes, n, dtype=torch.float64, generator=generator).to(dtype)


def random_parts(seed: int, n: int) -> Observation:
    """All that any rule reads, in float32."""
    patches = random_attention(seed, n, dtype=torch.float32)
    rollout = random_attention(seed + 7, n, dtype=torch.float32)
    return Observation(patches, random_attention(seed + 8, n, 0, torch.float32)[0], rollout)


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Equal up to the order of additions, which differs between devices, threads and ways to write a formula."""
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def moved_by(
    name: str, maps: Tensor, observation: Observation, grid: tuple[int, int] = (3, 4), **changes: Any
) -> Tensor:
    """The activation after a rule with some knobs changed."""
    return propagate(RULES[name], maps, observation, grid, RULES[name].knobs(**changes))


def words(annotation: Any) -> Iterator[str]:
    """All words that a type allows."""
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for part in get_args(annotation):
            yield from words(part)


def variants(name: str) -> Iterator[RuleKnobs]:
    """A rule's defaults, and every word of every knob that stands on its own; more of adcam's, which depend."""
    knobs = RULES[name].knobs
    yield knobs()
    for knob, field in knobs.model_fields.items():
        for word in words(field.annotation):
            try:
                yield knobs(**{knob: word})
            except ValidationError:
                assert name == "adcam", "words that depend on other knobs"
    if name == "adcam":
        yield knobs(topk=2)
        yield knobs(mode="ppr", steps="closed")
        yield knobs(similarity="shared_topk", topk=3)
        yield from (knobs(self_loop=word) for word in SELF_LOOPS)


CASES = [(name, knobs) for name in RULES for knobs in variants(name)]
"""Every rule with every variant of its knobs."""
