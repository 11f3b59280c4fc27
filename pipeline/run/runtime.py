"""Device, seeds and processes: what every stage that uses PyTorch needs before it starts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from pipeline.run.errors import UserError
from pipeline.run.told import NumberFormat, Runtime


@dataclass(frozen=True)
class Machine:
    """What a stage that uses PyTorch runs on, read once when it starts.

    Attributes:
        root: the folder that holds the photographs.
        device: where networks run.
        precision: the number format of forward passes.
        workers: processes that load images and run the CRF.
    """

    root: Path
    device: torch.device
    precision: torch.dtype
    workers: int

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision for forward passes, where `precision` says so."""
        return torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision != torch.float32)

    def step_done(self) -> None:
        """Called after each step of a training; nothing to do, unless a machine measures."""


def machine_of(runtime: Runtime) -> Machine:
    """The machine as the knobs name it; `auto` takes CUDA where there is one, and a 16-bit format there alone.

    Raises:
        UserError: CUDA is asked for and not there.
    """
    cuda = torch.cuda.is_available()
    if runtime.device == "cuda" and not cuda:
        raise UserError("device = cuda, but PyTorch sees no CUDA device; set device to auto or cpu")
    device = torch.device("cpu")
    if cuda and runtime.device != "cpu":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return Machine(runtime.folder, device, _precision(runtime.precision, device), runtime.workers)


def _precision(wanted: str, device: torch.device) -> torch.dtype:
    """The number format that the knob names; auto: of 16 bits on CUDA alone."""
    if wanted == "auto":
        wanted = auto_format() if device.type == "cuda" else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]


def auto_format() -> NumberFormat:
    """The number format that suits this machine's GPU; float32 where PyTorch sees none."""
    if not torch.cuda.is_available():
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


def be_deterministic() -> None:
    """Same seed, same machine, same bits; CUDA operations that have no deterministic form only warn."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    # The backward passes of these kernels add up in any order, whatever the line above says.
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed from the parts, the same on every machine and in every run."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """A NumPy generator that depends on the parts alone."""
    return np.random.default_rng(derived_seed(*parts))


# ------------------------------------------------------------------------------------------------------ processes


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes that work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait for the other processes."""
    if dist.is_initialized():
        dist.barrier()


@contextmanager
def distributed(runtime: Runtime) -> Iterator[Machine]:
    """The machine; under torchrun also join the process group that it describes in the environment."""
    be_deterministic()
    machine = machine_of(runtime)
    if "LOCAL_RANK" not in os.environ:
        yield machine
        return
    if machine.device.type == "cuda":
        torch.cuda.set_device(machine.device)
    backend = "nccl" if machine.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(hours=2))
    try:
        yield machine
    finally:
        dist.destroy_process_group()
