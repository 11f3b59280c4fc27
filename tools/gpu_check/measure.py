"""What a stage costs on a device: seconds, memory, time of a step, and operations without a deterministic form."""

from __future__ import annotations

import gc
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from pipeline.run.files import sha256
from pipeline.run.runtime import Machine, world_size

Row = dict[str, Any]
NO_FORM = " does not have a deterministic implementation"


@dataclass(frozen=True)
class TimedMachine(Machine):
    """A machine that notes when each step of a training has ended."""

    ends: list[float] = field(default_factory=list)

    def step_done(self) -> None:
        """Wait for the device, so that its work counts, and note the time."""
        synchronise(self.device)
        self.ends.append(time.perf_counter())


def synchronise(device: torch.device) -> None:
    """Wait for the work that is queued on a device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measured(work: Callable[[], object], machine: TimedMachine) -> Row:
    """Do some work; its seconds, the device's peak memory, and what went wrong.

    An error becomes a part of the row, so that other work goes on. Of several processes it ends all, since the others
    wait for the one that failed.

    Returns:
        `seconds`; on CUDA `peak_gib`; where there are such, `nondeterministic` operations; where it failed, `error`.
    """
    start_afresh(machine)
    row: Row = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = time.perf_counter()
        try:
            work()
            synchronise(machine.device)
        except Exception as error:  # any: an operation that a device lacks, memory that is full, a wrong knob
            if world_size() > 1:
                raise
            row["error"] = error_line(error)
        row["seconds"] = round(time.perf_counter() - start, 2)
    if machine.device.type == "cuda":
        row["peak_gib"] = round(torch.cuda.max_memory_allocated(machine.device) / 2**30, 2)
    if names := nondeterministic([str(warning.message) for warning in caught]):
        row["nondeterministic"] = names
    return row


def start_afresh(machine: TimedMachine) -> None:
    """Forget the steps and the memory of the work before."""
    machine.ends.clear()
    gc.collect()
    if machine.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(machine.device)


def error_line(error: Exception) -> str:
    """Kind and message of an error, on one line of at most 300 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def nondeterministic(messages: Sequence[str]) -> list[str]:
    """The operations that PyTorch's warnings name as having no deterministic form."""
    return sorted({message.split(NO_FORM)[0] for message in messages if NO_FORM in message})


def speed(ends: Sequence[float], batch: int) -> Row:
    """Number of steps, and from the median of the times between their ends milliseconds a step and images a second.

    Args:
        ends: when each step ended, in seconds; nothing comes of fewer than two.
        batch: images per step, over all processes.
    """
    if len(ends) < 2:
        return {}
    step = statistics.median(after - before for before, after in pairwise(ends))
    return {"steps": len(ends), "step_ms": round(1000 * step, 1), "images_s": round(batch / step, 1)}


def trained(folder: Path) -> Row:
    """Whether all weights that a training left are finite, and the start of their hash; nothing where it left none."""
    path = folder / "weights.safetensors"
    if not path.exists():
        return {}
    finite = all(bool(value.isfinite().all()) for value in load_file(path).values())
    return {"finite": finite, "weights": sha256(path)[:12]}
