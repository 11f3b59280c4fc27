"""Times the random walk: dense squaring, step by step, and Chebyshev series, side by side in one process.

python -m tools.bench_walk --grid 47 63 --steps 256 --classes 3 --repeats 3
"""

import argparse
import statistics
import time
import weakref
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.affinity.affinitynet import feature_affinity
from models.affinity.pairs import Neighbourhood
from models.refine.walk import Mode, random_walk

MODES: tuple[Mode, ...] = ("dense", "steps", "chebyshev")


def problem(grid: tuple[int, int], channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Scores (1, channels, h, w) in [0, 1] and affinities (1, 34, h, w) of smooth random fields."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 8 + channels, 6, 8, generator=generator)
    fields = F.interpolate(coarse, size=grid, mode="bicubic", align_corners=False).to(device)
    affinity = feature_affinity(fields[:, :8], Neighbourhood(5, "full"))
    return torch.sigmoid(2 * fields[:, 8:]), affinity


def timed(scores: Tensor, affinity: Tensor, steps: int, mode: Mode) -> tuple[float, Tensor]:
    """Seconds of one walk and its result."""
    synchronise(scores.device)
    start = time.perf_counter()
    walked = random_walk(scores, affinity, steps=steps, mode=mode)
    synchronise(scores.device)
    return time.perf_counter() - start, walked


def synchronise(device: torch.device) -> None:
    """Wait for queued kernels, so that they are counted."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that live at once while it is active, and keeps the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator and note the storages it returns."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self.live:
                    self.live[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.live.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self.live.values()))
        return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description="Times the random walk.")
    parser.add_argument("--grid", type=int, nargs=2, default=(47, 63), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--classes", type=int, default=3, help="score channels, background included")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    rows, columns = options.grid
    scores, affinity = problem((rows, columns), options.classes, torch.device(options.device))
    print(f"{rows}x{columns} cells, {options.steps} steps, {options.classes} channels, {options.device}")
    compare(scores, affinity, options.steps, options.repeats)
    print("peak tensor memory of one walk:")
    for factor in (1, 2):
        grid = (factor * rows, factor * columns)
        report_memory(*problem(grid, options.classes, torch.device("cpu")), options.steps)


def compare(scores: Tensor, affinity: Tensor, steps: int, repeats: int) -> None:
    """Print times, their ratio to the dense walk, and the distance of each result from a float64 walk."""
    for mode in MODES:
        timed(scores, affinity, min(steps, 2), mode)  # warm up
    runs = [{mode: timed(scores, affinity, steps, mode) for mode in MODES} for _ in range(repeats)]
    exact = random_walk(scores.double(), affinity.double(), steps=steps, mode="steps")
    for mode in MODES:
        seconds = statistics.median(run[mode][0] for run in runs)
        ratio = statistics.median(run["dense"][0] / run[mode][0] for run in runs)
        walked = runs[0][mode][1]
        error = float(((walked - exact).abs() / exact.abs().clamp_min(1e-6)).max())
        agreement = float((walked.argmax(1) == exact.argmax(1)).float().mean())
        print(
            f"  {mode:9s} {1000 * seconds:10.2f} ms   {ratio:8.1f} x faster than dense"
            f"   against float64: max relative error {error:.1e}, equal argmax {100 * agreement:.2f} %"
        )


def report_memory(scores: Tensor, affinity: Tensor, steps: int) -> None:
    """Print the peak memory of the stencil walk and the size of one dense matrix."""
    cells = scores.shape[-2] * scores.shape[-1]
    with PeakMemory() as memory:
        random_walk(scores, affinity, steps=steps, mode="chebyshev")
    print(
        f"  {scores.shape[-2]}x{scores.shape[-1]}: chebyshev {memory.peak / 2**20:.2f} MiB"
        f" ({memory.peak / cells:.0f} bytes a cell); one dense matrix {4 * cells**2 / 2**20:.0f} MiB"
    )


if __name__ == "__main__":
    main()
