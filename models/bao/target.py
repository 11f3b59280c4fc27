"""The target network of self-training: when it takes over the online network's weights, and how."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from models.labels import IGNORE

Network = TypeVar("Network", bound=nn.Module)
Buffers = Literal["own", "copy", "ema"]


class Update(NamedTuple):
    """What happens to the target after a step; momentum is the share of its old weights that it keeps."""

    mode: Literal["share", "ema", "freeze"]
    momentum: float


FREEZE, SHARE = Update("freeze", 1.0), Update("share", 0.0)


@dataclass(frozen=True)
class Phase:
    """A stretch of the schedule.

    Attributes:
        from_epoch: 0-based epoch from which it holds.
        mode: `share` copies the online network, `ema` averages towards it, `freeze` leaves the target alone, `auto`
            shares until a `RiseSwitch` fires and averages from then on (`reconstructed`).
        every: update after each iteration, or after the last iteration of each epoch.
    """

    from_epoch: int
    mode: Literal["share", "ema", "freeze", "auto"]
    every: Literal["iteration", "epoch"] = "iteration"


@dataclass(frozen=True)
class TargetSchedule:
    """Phases of the target's updates; a pure function of the position, so that a continued run goes on exactly.

    Attributes:
        phases: in ascending order, the first from epoch 0.
        epochs: length of the training.
        base, final: momentum at the start and (not quite reached) at the end of its cosine.
        restart: the cosine starts anew each `epoch`, or spans the phase (`none`).

    Raises:
        ValueError: the phases do not start at 0 or do not ascend within the training.

    Source: BAO, sections 4.3 and 5.3 and eq. 9 (`published`); update after every iteration and the restart each epoch
    are `released`.
    """

    phases: tuple[Phase, ...]
    epochs: int
    base: float = 0.9995
    final: float = 1.0
    restart: Literal["epoch", "none"] = "epoch"

    def __post_init__(self) -> None:
        starts = [phase.from_epoch for phase in self.phases]
        if not starts or starts[0] != 0 or starts != sorted(set(starts)) or starts[-1] >= self.epochs:
            raise ValueError(f"phases must ascend from epoch 0 and begin before epoch {self.epochs}; got {starts}")

    def at(self, epoch: int, step: int, steps: int, switched: bool = False) -> Update:
        """The update after an optimiser step.

        Args:
            epoch: 0-based epoch.
            step: 0-based step within the epoch.
            steps: steps per epoch.
            switched: whether the switch of an `auto` phase has fired.

        Raises:
            ValueError: the position is outside the training.
        """
        if not (0 <= epoch < self.epochs and 0 <= step < steps):
            raise ValueError(f"epoch {epoch}, step {step} is outside {self.epochs} epochs of {steps} steps")
        number = max(n for n, phase in enumerate(self.phases) if phase.from_epoch <= epoch)
        phase, following = self.phases[number], self.phases[number + 1 :]
        if phase.mode == "freeze" or (phase.every == "epoch" and step < steps - 1):
            return FREEZE
        if phase.mode == "share" or (phase.mode == "auto" and not switched):
            return SHARE
        done, total = (step, steps) if phase.every == "iteration" else (0, 1)
        if self.restart == "none":
            end = following[0].from_epoch if following else self.epochs
            done += (epoch - phase.from_epoch) * total
            total *= end - phase.from_epoch
        return Update("ema", cosine_momentum(done, total, self.base, self.final))


def cosine_momentum(done: int, total: int, base: float = 0.9995, final: float = 1.0) -> float:
    """Momentum after `done` of `total` updates: from `base` along half a cosine to `final` (at `done` = `total`).

    Source: `released` BAO code; the paper says "cosine schedule".
    """
    return final + (base - final) * (1 + math.cos(math.pi * done / total)) / 2


def target_of(online: Network) -> Network:
    """A copy of the online network, weights and buffers, that never learns by gradient."""
    return copy.deepcopy(online).requires_grad_(False)


@torch.no_grad()
def update_target(target: nn.Module, online: nn.Module, update: Update, buffers: Buffers = "own") -> None:
    """Change the target's weights in place.

    Args:
        target: the network to change.
        online: a network of the same structure; not changed.
        update: from `TargetSchedule.at`. Sharing copies parameters and buffers, whatever `buffers` says.
        buffers: at `ema`, what happens to buffers such as batch norm's statistics: the target keeps its `own`, which
            its own forward passes move (`released`), or takes a `copy`, or averages floating ones like parameters
            and copies the others (`ema`).

    Raises:
        ValueError: the networks differ in names, number or shapes of parameters or buffers.
    """
    if update.mode == "freeze":
        return
    for old, new in _matching(target.named_parameters(), online.named_parameters()):
        _move(old, new, update.momentum)
    if update.mode == "share" or buffers != "own":
        averaged = update.mode == "ema" and buffers == "ema"
        for old, new in _matching(target.named_buffers(), online.named_buffers()):
            _move(old, new, update.momentum if averaged and old.is_floating_point() else 0.0)


def _matching(
    target: Iterable[tuple[str, Tensor]], online: Iterable[tuple[str, Tensor]]
) -> Iterator[tuple[Tensor, Tensor]]:
    """The tensors of two networks side by side."""
    for (name, old), (other, new) in zip(target, online, strict=True):
        if name != other or old.shape != new.shape:
            raise ValueError(f"the target has {name} {tuple(old.shape)}, the online network {other} {tuple(new.shape)}")
        yield old, new


def _move(old: Tensor, new: Tensor, momentum: float) -> None:
    """momentum * old + (1 - momentum) * new, written into `old`; an exact copy for 0."""
    if momentum == 0:
        old.copy_(new)
    else:
        old.lerp_(new.to(old.dtype), 1 - momentum)


def foreground_share(labels: Tensor) -> Tensor:
    """Share of the pixels that have a class among those not ignored; 0-d, in [0, 1], 0 where all are ignored.

    Args:
        labels: any shape, integers; 0 background, 255 ignored.
    """
    known = labels != IGNORE
    return ((labels != 0) & known).sum() / known.sum().clamp(min=1)


def disagreement(labels: Tensor, others: Tensor) -> Tensor:
    """Share of the pixels labelled differently among those ignored by neither; 0-d, in [0, 1].

    Args:
        labels: any shape, integers, 255 ignored.
        others: the same shape.
    """
    known = (labels != IGNORE) & (others != IGNORE)
    return ((labels != others) & known).sum() / known.sum().clamp(min=1)


class RiseSwitch:
    """Fires once, when the mean of a signal over a window rises above its lowest mean so far, and stays on.

    For phases of mode `auto`: the signal needs no masks, for instance `foreground_share` of the target's labels
    (while sharing, online and target hardly disagree). With several processes feed all of them the mean over
    processes, so that they switch together. BAO sets the switch by hand and names this as open (section 5.3); the
    rule is `reconstructed`.

    Args:
        window: observations per window; steps per epoch for one decision an epoch.
        patience: windows in a row that must lie above the lowest.
        margin: how far above, relative to the lowest.

    Raises:
        ValueError: window or patience below 1, or a negative margin.
    """

    STATE = ("switched", "lowest", "rises", "total", "count")

    def __init__(self, window: int, patience: int = 1, margin: float = 0.0) -> None:
        if window < 1 or patience < 1 or margin < 0:
            raise ValueError(f"need window and patience >= 1 and margin >= 0, got {window}, {patience}, {margin}")
        self.window, self.patience, self.margin = window, patience, margin
        self.switched = False
        self.lowest: float | None = None
        self.rises, self.total, self.count = 0, 0.0, 0

    def observe(self, value: float) -> bool:
        """Take one value of the signal; whether the switch is on.

        Raises:
            ValueError: the value is not finite.
        """
        if not math.isfinite(value):
            raise ValueError(f"the signal of the switch is {value}")
        if not self.switched:
            self.total, self.count = self.total + value, self.count + 1
            if self.count == self.window:
                self._decide(self.total / self.count)
                self.total, self.count = 0.0, 0
        return self.switched

    def _decide(self, mean: float) -> None:
        """Compare a full window with the lowest before it."""
        if self.lowest is None or mean <= self.lowest * (1 + self.margin):
            self.rises = 0
        else:
            self.rises += 1
        self.lowest = mean if self.lowest is None else min(self.lowest, mean)
        self.switched = self.rises >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """The state as plain numbers, fit for JSON; settings are not part of it."""
        return {name: getattr(self, name) for name in self.STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`.

        Raises:
            ValueError: an entry is missing or unknown.
        """
        if set(state) != set(self.STATE):
            raise ValueError(f"state of the switch has {sorted(state)}, expected {sorted(self.STATE)}")
        for name, value in state.items():
            setattr(self, name, value)
