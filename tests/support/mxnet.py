"""Files of MXNet parameters, written byte by byte as MXNet does."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.mxnet_params import TYPES, V1, V2, V3

MAGICS = {0: None, 1: V1, 2: V2, 3: V3}


def params_bytes(arrays: Mapping[str, NDArray[Any]], version: int = 2) -> bytes:
    """The bytes of a file; version 0 is that of 2016."""
    data = struct.pack("<QQQ", 0x112, 0, len(arrays))
    for array in arrays.values():
        magic = MAGICS[version]
        data += b"" if magic is None else struct.pack("<I", magic)
        data += struct.pack("<i", 0) if version >= 2 else b""
        data += struct.pack(f"<I{array.ndim}{'I' if magic is None else 'q'}", array.ndim, *array.shape)
        if array.ndim:
            kind = [np.dtype(name) for name in TYPES].index(array.dtype)
            data += struct.pack("<iii", 1, 0, kind) + array.tobytes()
    data += struct.pack("<Q", len(arrays))
    for name in arrays:
        data += struct.pack("<Q", len(name)) + name.encode()
    return data


def write_params(path: Path, arrays: Mapping[str, NDArray[Any]], version: int = 2) -> None:
    """Write such a file."""
    path.write_bytes(params_bytes(arrays, version))
