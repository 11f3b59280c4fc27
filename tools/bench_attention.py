"""Benchmark of attention coupling: the peak memory of a mirrored pair through TransCAM, by how attention is kept.

`python -m tools.bench_attention` (or `make bench-attention`) measures each route in a process of its own, with one
CPU thread, in float32 and with random weights, and prints its peak and that as a share of stacking, the released way.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from models.networks.attention import AttentionCoupling, AttentionSum
from models.networks.conformer import CONFORMERS
from models.transcam.network import TransCam


def uncoupled(network: TransCam, views: Tensor) -> Tensor:
    """The network alone, whose memory no route can save."""
    return network.parts(views).maps


def running_sum(network: TransCam, views: Tensor) -> Tensor:
    """Attention added up block by block."""
    attention = AttentionSum()
    maps = network.parts(views, [attention]).maps
    return attention.couple(maps.flatten(2)).view_as(maps)


def fused(network: TransCam, views: Tensor) -> Tensor:
    """Queries and keys of all blocks kept, attention never written out."""
    attention = AttentionCoupling()
    maps = network.parts(views, [attention]).maps
    return attention.couple(maps.flatten(2)).view_as(maps)


def stacked(network: TransCam, views: Tensor) -> Tensor:
    """Attention of all blocks and heads kept, then stacked and averaged (released code of TransCAM)."""
    blocks: list[Tensor] = []
    maps = network.parts(views, [lambda _, queries, keys: blocks.append((queries @ keys.mT).softmax(-1))]).maps
    patches = torch.stack(blocks).mean(dim=2).sum(dim=0)[:, network.tokens :, network.tokens :]
    return (maps.flatten(2) @ patches.mT).view_as(maps)


ROUTES: dict[str, Callable[[TransCam, Tensor], Tensor]] = {
    "network alone": uncoupled,
    "running sum": running_sum,
    "fused": fused,
    "stacked": stacked,
}


def peak_memory(route: str, network: str = "conformer_s", size: int = 768) -> int:
    """Peak resident memory in bytes of a fresh process that sends one mirrored pair along a route."""
    command = [sys.executable, "-m", __spec__.name, "--route", route, "--network", network, "--size", str(size)]
    run = subprocess.run(command, cwd=Path(__file__).parents[1], check=True, stdout=subprocess.PIPE, text=True)
    return int(run.stdout)


@torch.inference_mode()
def measure(route: str, network: str, size: int) -> int:
    """Send a mirrored pair along a route in this process, and read the process's peak memory in bytes."""
    torch.set_num_threads(1)  # each thread would add scratch memory of its own
    view = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    ROUTES[route](TransCam(network, classes=20).eval(), torch.cat([view, view.flip(3)]))
    # Not getrusage: what that reports begins with the peak of the process that started this one.
    status = Path("/proc/self/status").read_text().splitlines()
    kibibytes = next(line.split()[1] for line in status if line.startswith("VmHWM:"))
    return 1024 * int(kibibytes)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=sorted(CONFORMERS), default="conformer_s")
    parser.add_argument("--size", type=int, default=768, help="side of the square view in pixels")
    parser.add_argument("--route", choices=list(ROUTES), help="this one alone, in this process; prints bytes")
    arguments = parser.parse_args()
    if arguments.route:
        print(measure(arguments.route, arguments.network, arguments.size))
        return
    print(f"{arguments.network}, a view of {arguments.size}x{arguments.size} and its mirror image, float32")
    peaks = {route: peak_memory(route, arguments.network, arguments.size) for route in ROUTES}
    for route, peak in peaks.items():
        print(f"{route:14s} {peak / 2**20:8.0f} MiB at the peak, {100 * peak / peaks['stacked']:3.0f} % of stacked")


if __name__ == "__main__":
    main()
