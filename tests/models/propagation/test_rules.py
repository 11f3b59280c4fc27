"""What holds for every propagation rule, whichever there are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.propagation import rules
from models.propagation.apply import propagate
from models.propagation.rule import Observation, Rule, RuleKnobs
from models.propagation.rules import load_rule, rule_module, rule_names
from tests.support.propagation import CASES, RULES, assert_same, moved_by, random_maps, random_parts


def all_zero(n: int) -> Observation:
    return Observation(torch.zeros(n, n), torch.zeros(n), torch.zeros(n, n))


@pytest.mark.parametrize(("name", "knobs"), CASES, ids=str)
def test_hard_inputs(name: str, knobs: RuleKnobs) -> None:
    rule, zero_rows = RULES[name], random_parts(0, 12)
    assert zero_rows.patches is not None
    zero_rows.patches[[0, 5]], zero_rows.patches[:, [0, 7]] = 0, 0
    tiny = Observation(torch.full((12, 12), 1e-42), torch.zeros(12), torch.zeros(12, 12))
    maps = random_maps(0, 3, 12, torch.float32)
    maps[1] = -1
    for observation in (zero_rows, all_zero(12), tiny):
        result = propagate(rule, maps, observation, (3, 4), knobs)
        assert result.isfinite().all() and result.dtype == torch.float32 and result.shape == maps.shape
    assert propagate(rule, maps[:0], zero_rows, (3, 4), knobs).shape == (0, 12)
    single = propagate(rule, torch.tensor([[2.0]]), random_parts(0, 1), (1, 1), knobs)
    assert single.shape == (1, 1) and single.isfinite().all()


@pytest.mark.parametrize("name", RULES)
def test_inputs_stay_as_they_are(name: str) -> None:
    changes: dict[str, Any] = {"box_mask": 0.5} if "box_mask" in RULES[name].knobs.model_fields else {}
    maps, parts = random_maps(0, 2, 12, torch.float32), random_parts(0, 12)
    moved_by(name, maps, parts, **changes)
    assert torch.equal(maps, random_maps(0, 2, 12, torch.float32))
    for found, expected in zip(vars(parts).values(), vars(random_parts(0, 12)).values(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", RULES)
def test_half_precision_is_computed_in_single(name: str) -> None:
    parts, maps = random_parts(0, 12), random_maps(0, 2, 12, torch.float32)
    half = Observation(*(part.half() for part in vars(parts).values()))
    rounded = Observation(*(part.half().float() for part in vars(parts).values()))
    expected = moved_by(name, maps, rounded)
    assert torch.equal(moved_by(name, maps, half), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(moved_by(name, maps, half), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_devices_agree() -> None:
    parts, maps = random_parts(0, 35), random_maps(0, 2, 35, torch.float32)
    there = Observation(*(part.cuda() for part in vars(parts).values()))
    for name, knobs in CASES:
        result = propagate(RULES[name], maps.cuda(), there, (5, 7), knobs)
        assert result.is_cuda
        assert_same(result.cpu(), propagate(RULES[name], maps, parts, (5, 7), knobs))


@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(0, 3))
@settings(deadline=None, max_examples=40)
def test_rules_follow_a_permutation_of_the_tokens(seed: int, n: int, classes: int) -> None:
    maps, parts = random_maps(seed, classes, n, torch.float32), random_parts(seed, n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert parts.patches is not None and parts.class_token is not None and parts.rollout is not None
    shuffled = Observation(parts.patches[order][:, order], parts.class_token[order], parts.rollout[order][:, order])
    for name, knobs in CASES:
        if "box_mask" in type(knobs).model_fields:  # boxes lie on the grid, whatever the tokens' order
            knobs = knobs.model_copy(update={"box_mask": None})
        plain = propagate(RULES[name], maps, parts, (1, n), knobs)
        result = propagate(RULES[name], maps[:, order], shuffled, (1, n), knobs)
        assert_same(result, plain[:, order])


@pytest.mark.parametrize("name", RULES)
def test_classes_do_not_see_each_other(name: str) -> None:
    changes: dict[str, Any] = {"box_mask": 0.5} if "box_mask" in RULES[name].knobs.model_fields else {}
    maps, parts = random_maps(4, 3, 12, torch.float32), random_parts(4, 12)
    together = moved_by(name, maps, parts, **changes)
    torch.testing.assert_close(together, torch.cat([moved_by(name, row[None], parts, **changes) for row in maps]))


@pytest.mark.parametrize("name", RULES)
def test_raw_rules_keep_the_scale_and_others_normalise_it(name: str) -> None:
    maps, parts = random_maps(6, 2, 12, torch.float32), random_parts(6, 12)
    once, scaled = moved_by(name, maps, parts), moved_by(name, 5 * maps, parts)
    torch.testing.assert_close(scaled, 5 * once if RULES[name].raw else once)


@pytest.mark.parametrize("name", RULES)
def test_rules_read_what_they_say(name: str) -> None:
    rule, parts, maps = RULES[name], random_parts(0, 12), random_maps(0, 2, 12, torch.float32)
    given_parts = Observation(**{need: getattr(parts, need) for need in rule.needs})
    assert torch.equal(moved_by(name, maps, given_parts), moved_by(name, maps, parts))
    assert any(tag in rule.source for tag in ("`published`", "`released`", "`reconstructed`")) or name == "none"
    if rule.needs:
        with pytest.raises(ValueError, match="not accumulated"):
            moved_by(name, maps, Observation())


@pytest.mark.parametrize("shape", [(2, 11), (12,), (1, 2, 12)])
def test_activation_off_the_grid_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="does not fit a grid"):
        moved_by("none", torch.zeros(shape), Observation())


@pytest.mark.parametrize("name", RULES)
def test_rules_say_what_their_knobs_mean(name: str) -> None:
    assert isinstance(RULES[name], Rule)
    for knob, field in RULES[name].knobs.model_fields.items():
        assert field.description and not field.is_required(), f"{name}.{knob} needs a meaning and a default"


def test_blocks_that_rules_take() -> None:
    assert RULES["transcam"].knobs().blocks_of(12) == range(12)
    assert RULES["transcam"].knobs(blocks=3).blocks_of(12) == range(9, 12)
    assert RULES["caa"].knobs().blocks_of(12) == range(4, 12)
    assert RULES["caa"].knobs().blocks_of(6) == range(6)
    assert RULES["rollout"].knobs().blocks_of(6) == range(6)


def test_a_file_is_a_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "doubled.py").write_text(
        "from models.propagation.rule import Rule, RuleKnobs\n"
        'RULE = Rule(lambda activation, *_: 2 * activation, RuleKnobs, "M\' = 2 M", raw=True)\n'
    )
    monkeypatch.setattr(rules, "__path__", [*rules.__path__, str(tmp_path)])
    assert "doubled" in rule_names()
    assert propagate(load_rule("doubled"), torch.ones(1, 1), Observation(), (1, 1), RuleKnobs()).item() == 2
    del sys.modules[rule_module("doubled")]


def test_rules_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no rule 'diffuse'; allowed are adcam, aux, baseline"):
        load_rule("diffuse")
