"""Benchmark of the CRF behind confident labels: two labellings in one field beside one run and two separate runs.

`python -m tools.bench_crf` (or `make bench-crf`) runs all three in one process on drawn scenes, in turn, and prints
the median of the ratios; times of a noisy machine cancel there.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from models.kernels import KERNELS
from pipeline.data.sources.scenes import draw_scene
from pipeline.maps.crf import dense_crf, label_energies


def seconds(work: Callable[[], object]) -> float:
    """How long a piece of work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=500, help="longer side of the scenes in pixels")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kernels", choices=sorted(KERNELS), default="irn")
    arguments = parser.parse_args()
    kernels, shared, separate = KERNELS[arguments.kernels], [], []
    for number in range(arguments.repeats):
        image, labels = draw_scene(0, "train", number, arguments.size)
        wide = label_energies((labels > 0).astype(np.int64), 2)
        narrow = label_energies((labels == labels.max()).astype(np.int64), 2)
        one = seconds(lambda: dense_crf(image, [wide], kernels))  # noqa: B023
        both = seconds(lambda: dense_crf(image, [wide, narrow], kernels))  # noqa: B023
        twice = seconds(lambda: [dense_crf(image, [unary], kernels) for unary in (wide, narrow)])  # noqa: B023
        shared.append(both / one)
        separate.append(twice / one)
        times = f"one {one:.2f} s, two in one field {both:.2f} s, two apart {twice:.2f} s"
        print(f"{image.shape[1]}x{image.shape[0]}: {times}")
    ratios = f"{statistics.median(shared):.2f} runs in one field, {statistics.median(separate):.2f} apart"
    print(f"two labellings cost {ratios}")


if __name__ == "__main__":
    main()
