"""The target network: schedule, momentum, updates, the automatic switch."""

import json
import math
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.bao.target import (
    FREEZE,
    SHARE,
    Buffers,
    Phase,
    RiseSwitch,
    TargetSchedule,
    Update,
    disagreement,
    foreground_share,
    target_of,
    update_target,
)

STEPS = 10


def schedule(*modes: Literal["share", "ema", "freeze", "auto"], epochs: int = 10, **settings: Any) -> TargetSchedule:
    """One epoch for each mode, the last to the end."""
    return TargetSchedule(tuple(Phase(n, mode) for n, mode in enumerate(modes)), epochs, **settings)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    model(torch.randn(2, 3, 8, 8))  # moves the statistics
    return model


def same_state(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_momentum_first_middle_last() -> None:
    plan = schedule("share", "ema")
    for epoch in (1, 2, 9):  # anew each epoch
        assert plan.at(epoch, 0, 1322).momentum == pytest.approx(0.9995, rel=1e-12)
        assert plan.at(epoch, 661, 1322).momentum == pytest.approx(0.99975, rel=1e-12)
        assert 0.999999 < plan.at(epoch, 1321, 1322).momentum < 1


def test_one_cosine_over_the_phase() -> None:
    plan = schedule("share", "ema", restart="none")
    assert plan.at(1, 0, STEPS).momentum == pytest.approx(0.9995, rel=1e-12)
    assert plan.at(5, STEPS // 2, STEPS).momentum == pytest.approx(0.99975, rel=1e-12)
    momenta = [plan.at(epoch, step, STEPS).momentum for epoch in range(1, 10) for step in range(STEPS)]
    assert momenta == sorted(momenta) and momenta[-1] < 1
    short = schedule("ema", "freeze", restart="none")
    assert short.at(0, 5, STEPS).momentum == pytest.approx(0.99975, rel=1e-12)


@pytest.mark.parametrize("restart", ["epoch", "none"])
def test_weight_that_survives_nine_epochs(restart: Literal["epoch", "none"]) -> None:
    plan = schedule("share", "ema", restart=restart)
    kept = math.prod(plan.at(epoch, step, 1322).momentum for epoch in range(1, 10) for step in range(1322))
    assert kept == pytest.approx(0.051, abs=5e-4)


def test_switches_at_the_right_iteration() -> None:
    plan = schedule("share", "ema", "freeze", epochs=4)
    modes = [plan.at(epoch, step, STEPS).mode for epoch in range(4) for step in range(STEPS)]
    assert modes == ["share"] * STEPS + ["ema"] * STEPS + ["freeze"] * 2 * STEPS


def test_once_an_epoch() -> None:
    plan = TargetSchedule((Phase(0, "share", "epoch"), Phase(2, "ema", "epoch")), 6, restart="none")
    updates = [plan.at(epoch, step, STEPS) for epoch in range(6) for step in range(STEPS)]
    assert [n for n, update in enumerate(updates) if update != FREEZE] == [9, 19, 29, 39, 49, 59]
    assert updates[19] == SHARE
    assert updates[29].momentum == pytest.approx(0.9995) and updates[49].momentum == pytest.approx(0.99975)


def test_automatic_phase_follows_the_switch() -> None:
    plan = schedule("auto")
    assert plan.at(3, 4, STEPS) == SHARE
    assert plan.at(3, 4, STEPS, switched=True) == schedule("ema").at(3, 4, STEPS)
    assert schedule("share").at(3, 4, STEPS, switched=True) == SHARE


@pytest.mark.parametrize("starts", [(), (1,), (0, 0), (0, 3, 2), (0, 10)])
def test_wrong_phases_are_refused(starts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="phases"):
        TargetSchedule(tuple(Phase(start, "share") for start in starts), 10)


@pytest.mark.parametrize("position", [(10, 0), (-1, 0), (0, STEPS), (0, -1)])
def test_positions_outside_the_training_are_refused(position: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="outside"):
        schedule("share").at(*position, STEPS)


def test_sharing_copies_parameters_and_buffers() -> None:
    target, online = network(0), network(1)
    assert not same_state(target, online)
    update_target(target, online, SHARE)
    assert same_state(target, online)
    assert all(a.data_ptr() != b.data_ptr() for a, b in zip(target.parameters(), online.parameters(), strict=True))


def test_freezing_changes_nothing() -> None:
    target = network(0)
    update_target(target, network(1), FREEZE)
    assert same_state(target, network(0))


@pytest.mark.parametrize("buffers", ["own", "copy"])
def test_buffers(buffers: Buffers) -> None:
    target, online = network(0), network(1)
    online(torch.randn(2, 3, 8, 8))
    before, after = network(0)[1], online[1]  # type: ignore[index]
    update_target(target, online, Update("ema", 0.9), buffers)
    share = {"own": 1.0, "copy": 0.0}[buffers]
    norm = target[1]  # type: ignore[index]
    torch.testing.assert_close(norm.running_var, share * before.running_var + (1 - share) * after.running_var)
    assert norm.num_batches_tracked == (1 if buffers == "own" else 2)


@settings(deadline=None)
@given(momenta=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_average_equals_the_closed_form(momenta: list[float]) -> None:
    rng = torch.Generator().manual_seed(len(momenta))
    target, online = nn.Linear(3, 2), nn.Linear(3, 2)
    expected = target.weight.detach().double().clone()
    seen = [torch.randn(2, 3, generator=rng) for _ in momenta]
    for k, weight in enumerate(seen):
        online.weight.data = weight.clone()
        update_target(target, online, Update("ema", momenta[k]))
    expected *= math.prod(momenta)
    for k, weight in enumerate(seen):
        expected += (1 - momenta[k]) * math.prod(momenta[k + 1 :]) * weight.double()
    torch.testing.assert_close(target.weight.detach().double(), expected, rtol=0, atol=2e-6)


def test_no_gradient_reaches_the_target() -> None:
    online = network(0)
    target = target_of(online)
    assert same_state(target, online) and all(parameter.requires_grad for parameter in online.parameters())
    images = torch.randn(2, 3, 8, 8)
    (online(images) - target(images)).square().sum().backward()
    online(images).sum().backward()
    update_target(target, online, Update("ema", 0.5))
    for parameter in target.parameters():
        assert parameter.grad is None and not parameter.requires_grad and parameter.grad_fn is None
    assert all(parameter.grad is not None for parameter in online.parameters())


def test_networks_that_differ_are_refused() -> None:
    convolution = nn.Sequential(nn.Conv2d(3, 4, 3))
    for other, message in ((nn.Linear(2, 2), "the target has"), (convolution, "shorter")):
        with pytest.raises(ValueError, match=message):
            update_target(network(0), other, SHARE)
    with pytest.raises(ValueError, match=r"\(3, 1\)"):  # no silent broadcasting
        update_target(nn.Linear(3, 3), nn.Linear(1, 3), SHARE)


def test_signals() -> None:
    labels = torch.tensor([0, 0, 3, 255, 1, 255])
    assert foreground_share(labels) == 0.5
    assert foreground_share(torch.full((2, 2), 255)) == 0
    assert disagreement(labels, torch.tensor([0, 1, 3, 1, 255, 255])).item() == pytest.approx(1 / 3)
    assert disagreement(labels, torch.full_like(labels, 255)) == 0


def test_the_switch_fires_when_the_signal_starts_to_rise() -> None:
    switch = RiseSwitch(window=2)
    fired = [switch.observe(value) for value in (5, 3, 3, 3, 1, 2, 2, 2, 0, 0)]
    assert fired == [False] * 7 + [True] * 3  # windows 4, 3, 1.5, 2; what follows is not looked at


def test_patience() -> None:
    switch, patient = RiseSwitch(1), RiseSwitch(1, patience=2)
    assert not any(switch.observe(value) for value in (3, 2, 2, 1))
    assert [patient.observe(value) for value in (1, 2, 1, 2, 3)] == [False] * 4 + [True]


@settings(deadline=None)
@given(values=st.lists(st.floats(0, 1), max_size=30), cut=st.integers(0, 30), window=st.integers(1, 5))
def test_the_switch_survives_save_and_load(values: list[float], cut: int, window: int) -> None:
    whole, first, second = (RiseSwitch(window, patience=2) for _ in range(3))
    expected = [whole.observe(value) for value in values]
    before = [first.observe(value) for value in values[:cut]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert before + [second.observe(value) for value in values[cut:]] == expected
    assert second.state_dict() == whole.state_dict()


def test_the_switch_refuses_nonsense() -> None:
    for wrong in ({"window": 0}, {"window": 1, "patience": 0}):
        with pytest.raises(ValueError, match="need window"):
            RiseSwitch(**wrong)
    with pytest.raises(ValueError, match="signal"):
        RiseSwitch(1).observe(math.nan)
    with pytest.raises(ValueError, match="state"):
        RiseSwitch(1).load_state_dict({"switched": True})


def run(target: nn.Module, plan: TargetSchedule, switch: RiseSwitch, positions: list[tuple[int, int]]) -> list[Update]:
    """A stand-in for training: the online network depends on the position alone."""
    updates = []
    for epoch, step in positions:
        switch.observe(abs(5 - (epoch * STEPS + step)))
        updates.append(plan.at(epoch, step, STEPS, switch.switched))
        update_target(target, network(100 * epoch + step), updates[-1], "copy")
    return updates


def test_a_continued_run_equals_an_unbroken_one() -> None:
    plan, positions = schedule("auto", epochs=3, restart="none"), [(e, s) for e in range(3) for s in range(STEPS)]
    whole = network(0)
    updates = run(whole, plan, RiseSwitch(3), positions)
    assert {update.mode for update in updates} == {"share", "ema"}

    switch, halves = RiseSwitch(3), (network(0), network(1))
    first = run(halves[0], plan, switch, positions[:14])
    halves[1].load_state_dict(halves[0].state_dict())
    resumed = RiseSwitch(3)
    resumed.load_state_dict(switch.state_dict())
    assert first + run(halves[1], plan, resumed, positions[14:]) == updates
    assert same_state(halves[1], whole)
