"""Benchmark of what stages tell the allocator: a training step with and without it.

`python -m tools.bench_memory` (or `make bench-memory`) trains Lite0 for a few steps in a process of its own for each
setting, with one CPU thread, and prints CPU seconds and page faults of a step, and the peak memory. The losses must be
the same to the last bit.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from models.cam.classifier import CamClassifier
from pipeline.run.runtime import be_deterministic, keep_freed_memory

SETTINGS = {
    "as stages run": ("empty", "kept"),
    "filled memory": ("filled", "kept"),
    "freed memory returned": ("empty", "returned"),
    "both": ("filled", "returned"),
}
BATCH, SIDE = 16, 256


def measure(fill: str, freed: str, steps: int) -> dict[str, Any]:
    """Train in this process: CPU seconds and page faults of a step, peak memory in MiB, the loss of the last step."""
    torch.set_num_threads(1)
    be_deterministic()
    torch.utils.deterministic.fill_uninitialized_memory = fill == "filled"  # type: ignore[attr-defined]
    if freed == "kept":
        keep_freed_memory()
    torch.manual_seed(0)
    network = CamClassifier("efficientnet_lite0", classes=6).train()
    optimiser = torch.optim.AdamW(network.parameters())
    images = torch.randn(BATCH, 3, SIDE, SIDE).to(memory_format=torch.channels_last)
    tags = torch.rand(BATCH, 6).round()

    def step() -> float:
        loss = functional.binary_cross_entropy_with_logits(network(images), tags)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    step()
    before = resource.getrusage(resource.RUSAGE_SELF)
    losses = [step() for _ in range(steps)]
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    faults = (after.ru_minflt - before.ru_minflt) / steps
    return {"seconds": seconds / steps, "faults": faults, "mib": after.ru_maxrss / 1024, "loss": losses[-1].hex()}


def in_a_process(fill: str, freed: str, steps: int) -> dict[str, Any]:
    """What `measure` gives in a fresh process."""
    command = [sys.executable, "-m", __spec__.name, "--one", fill, freed, "--steps", str(steps)]
    run = subprocess.run(command, cwd=Path(__file__).parents[1], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--one", nargs=2, help="this setting alone, in this process; prints JSON")
    arguments = parser.parse_args()
    if arguments.one:
        fill, freed = arguments.one
        print(json.dumps(measure(fill, freed, arguments.steps)))
        return
    found = {name: in_a_process(*setting, arguments.steps) for name, setting in SETTINGS.items()}
    for name, row in found.items():
        share = row["seconds"] / found["both"]["seconds"]
        print(
            f"{name:22} {row['seconds']:6.2f} CPU s a step, {100 * share:4.0f} %  "
            f"{row['faults']:8.0f} page faults  {row['mib']:6.0f} MiB at the peak"
        )
    print("same losses" if len({row["loss"] for row in found.values()}) == 1 else "OTHER LOSSES")


if __name__ == "__main__":
    main()
