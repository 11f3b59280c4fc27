"""Weights of the networks that made the reference arrays, from an entry's name and shape alone."""

import zlib

import numpy as np
import torch
from torch import Tensor


def filled(name: str, shape: tuple[int, ...], salt: int, qkv_gain: float = 1) -> Tensor:
    """The values of one entry. `qkv_gain` multiplies the projections of attention, which makes it selective."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if name.endswith(("running_mean", "running_var")):
        return torch.full(shape, float(name.endswith("var")))
    seed = (zlib.crc32(name.encode()) + salt) % 2**32
    # The reference arrays were made with the legacy generator.
    noise = 0.02 * np.random.RandomState(seed).standard_normal(shape)
    if name.endswith(".weight") and len(shape) == 1:
        noise += 1
    gain = qkv_gain if name.endswith("attn.qkv.weight") else 1
    return gain * torch.from_numpy(noise.astype(np.float32))
