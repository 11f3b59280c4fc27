"""A checksum of tensors; safetensors files have none of their own."""

from __future__ import annotations

from collections.abc import Mapping
from zlib import crc32

import torch
from torch import Tensor


def checksum(tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 of names and values, whatever their order; tensors of any type, on the CPU."""
    total = 0
    for name in sorted(tensors):
        values = tensors[name].contiguous().flatten().view(torch.uint8).numpy()
        total = crc32(values.tobytes(), crc32(name.encode(), total))
    return total
