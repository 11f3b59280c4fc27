"""Device, seeds and processes: what every stage that uses PyTorch needs before it starts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from pipeline.config.params import Runtime, stage_config
from pipeline.run.errors import UserError


def pick_device() -> torch.device:
    """The device that the knob `device` names; `auto` takes CUDA where there is one.

    Raises:
        UserError: CUDA is asked for and not there.
    """
    wanted = stage_config("runtime", Runtime).device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("device = cuda, but PyTorch sees no CUDA device; set device to auto or cpu")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


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


def all_mean(value: torch.Tensor) -> torch.Tensor:
    """Mean of a tensor over all processes, the same in each."""
    if not dist.is_initialized():
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


@contextmanager
def distributed() -> Iterator[None]:
    """Join the process group that torchrun describes in the environment; alone, do nothing."""
    be_deterministic()
    if "LOCAL_RANK" not in os.environ:
        yield
        return
    device = pick_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=2))
    try:
        yield
    finally:
        dist.destroy_process_group()
