"""Weights of the networks that made the reference arrays, from an entry's name and shape alone."""

import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def filled(name: str, shape: tuple[int, ...], salt: int, qkv_gain: float = 1) -> Tensor:
    """The values of one entry. `qkv_gain` multiplies the projections of attention, which makes it selective."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if name.endswith(("running_mean", "running_var")):
        return torch.full(shape, float(name.endswith("var")))
    gain = qkv_gain if name.endswith("attn.qkv.weight") else 1
    return gain * _noise(name, shape, salt)


@lru_cache(maxsize=800)  # the entries of the largest trunk, which several networks share
def _noise(name: str, shape: tuple[int, ...], salt: int) -> Tensor:
    seed = (zlib.crc32(name.encode()) + salt) % 2**32
    # The reference arrays were made with the legacy generator.
    noise = 0.02 * np.random.RandomState(seed).standard_normal(shape)
    if name.endswith(".weight") and len(shape) == 1:
        noise += 1
    return torch.from_numpy(noise.astype(np.float32))


def filled_network(
    build: Callable[[], Network], released_name: Callable[[str], str], salt: int, qkv_gain: float = 1
) -> Network:
    """A network in evaluation mode, every entry filled by its name in the released program.

    Args:
        build: makes the network; called on the meta device.
        released_name: the name there of one of our entries.
        salt: see the reference file.
        qkv_gain: see `filled`.
    """
    with torch.device("meta"):
        network = build()
    network = network.to_empty(device="cpu")
    entries = network.state_dict().items()
    state = {name: filled(released_name(name), tuple(own.shape), salt, qkv_gain) for name, own in entries}
    network.load_state_dict(state)
    return network.eval()
