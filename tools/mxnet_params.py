"""Reading MXNet's `.params` files without MXNet: a list of dense arrays and a list of their names.

All numbers are little-endian. Three versions of an array are known: the first has its number of dimensions where later
ones have a magic number.

Source: MXNet (`src/ndarray/ndarray.cc`, `NDArray::Save`).
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LIST_MAGIC = 0x112
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
TYPES = ("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8")
"""By MXNet's number of the type."""
MOST_DIMENSIONS = 32


class _Reader:
    """The bytes of a file, taken one after the other; nothing is taken beyond its end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.place:
            raise ValueError(f"it ends at byte {len(self.data)}, within an entry")
        self.place += size
        return self.data[self.place - size : self.place]

    def numbers(self, kind: str, count: int) -> tuple[int, ...]:
        """So many numbers of a kind, as `struct` calls it."""
        size = struct.calcsize(f"<{kind}") * count
        if size > len(self.data) - self.place:
            raise ValueError(f"it ends at byte {len(self.data)}, within an entry")
        return struct.unpack(f"<{count}{kind}", self.take(size))

    def number(self, kind: str) -> int:
        return self.numbers(kind, 1)[0]


def read_params(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file, by name; names begin with `arg:` or `aux:`.

    Raises:
        ValueError: it is no such file, is damaged, or holds sparse arrays.
        OSError: it cannot be read.
    """
    reader = _Reader(path.read_bytes())
    if reader.number("Q") != LIST_MAGIC:
        raise ValueError("it is no file of MXNet parameters")
    reader.number("Q")  # reserved
    arrays = [_array(reader) for _ in range(reader.number("Q"))]
    names = [reader.take(reader.number("Q")).decode() for _ in range(reader.number("Q"))]
    if len(names) != len(arrays) or len(set(names)) != len(names):
        raise ValueError(f"it has {len(arrays)} arrays and {len(set(names))} different names")
    return dict(zip(names, arrays, strict=True))


def _array(reader: _Reader) -> NDArray[Any]:
    """The next array."""
    shape = _shape(reader)
    if not shape:
        return np.zeros((), dtype=np.float32)
    reader.numbers("i", 2)  # the device that it was on
    kind = reader.number("i")
    if not 0 <= kind < len(TYPES):
        raise ValueError(f"it has an array of the unknown type {kind}")
    dtype = np.dtype(TYPES[kind])
    return np.frombuffer(reader.take(dtype.itemsize * math.prod(shape)), dtype=dtype).reshape(shape)


def _shape(reader: _Reader) -> tuple[int, ...]:
    """The shape of the next array."""
    first = reader.number("I")
    if first in (V2, V3) and reader.number("i") != 0:
        raise ValueError("it has a sparse array")
    old = first not in (V1, V2, V3)
    dimensions = first if old else reader.number("I")
    if dimensions > MOST_DIMENSIONS:
        raise ValueError(f"it has an array of {dimensions} dimensions")
    shape = reader.numbers("I" if old else "q", dimensions)
    if any(side < 0 for side in shape):
        raise ValueError(f"it has an array of shape {shape}")
    return shape
