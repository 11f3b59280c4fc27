"""Arrays of other programs from `.npy` and `.npz` files, read as data: nothing in a file is executed.

Programs keep dictionaries of arrays in `.npy` files, which NumPy writes as pickles. A pickle names functions to call.
Only those that NumPy and PyTorch name for arrays are known, and none of theirs is called: each name stands for a small
reader here, which takes plain numbers. Every other name is refused.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pipeline.run.errors import UserError

Array = NDArray[Any]
Arrays = dict[int | str, Array]
KINDS = "biuf"
"""Truth values, whole numbers and floating-point numbers; NumPy's letters."""


class ForeignNameError(Exception):
    """A pickle asks for something that is no array; the message is its name."""


def read_arrays(path: Path) -> Arrays:
    """The arrays of a file by name or number: a dictionary in `.npy`, or the members of `.npz`.

    Raises:
        UserError: it is missing or damaged, or holds anything but arrays of numbers.
    """
    try:
        with path.open("rb") as file:
            found = _read_zip(file) if path.suffix == ".npz" else _read_npy(file)
    except ForeignNameError as error:
        raise UserError(
            f"{path}: it holds {error}, which is no array and may be code; nothing of it was run. Use no such file, or "
            "let its program write the arrays alone, by numpy.savez"
        ) from error
    except FileNotFoundError as error:
        raise UserError(f"{path} not found") from error
    except Exception as error:  # a pickle that is damaged may raise anything; none may reach the user as a traceback
        raise UserError(f"{path}: cannot be read as arrays: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: it holds one array without a name; a file holds a dictionary of arrays")
    return {_name(path, key): _numbers(path, key, value) for key, value in found.items()}


def _name(path: Path, key: Any) -> int | str:
    """A key of a dictionary; numbers that stand as text, as members of `.npz` have them, are numbers."""
    if isinstance(key, str):
        return int(key) if key.isdecimal() else key
    if isinstance(key, int) and not isinstance(key, bool):
        return key
    raise UserError(f"{path}: its dictionary has the key {key!r}; keys are class numbers or names of arrays")


def _numbers(path: Path, key: Any, value: Any) -> Array:
    """An entry as an array of numbers; a list of numbers is one too."""
    plain = isinstance(value, list | tuple) and all(isinstance(part, int | float) for part in value)
    array = np.asarray(value) if plain else _plain(value)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in KINDS:
        raise UserError(f"{path}: the entry {key!r} is no array of numbers")
    return array


# ------------------------------------------------------------------------------------------------------------- files


def _read_zip(file: BinaryIO) -> Any:
    """The members of an `.npz`; one that holds a single dictionary, as `numpy.savez(path, dictionary)` makes it."""
    with zipfile.ZipFile(file) as archive:
        members = {}
        for name in archive.namelist():
            with archive.open(name) as member:
                members[name.removesuffix(".npy")] = _read_npy(io.BytesIO(member.read()))
    only = next(iter(members.values())) if len(members) == 1 else None
    return only if isinstance(only, dict) else members


def _read_npy(file: BinaryIO) -> Any:
    """An array, or what the pickle of a single object holds.

    Raises:
        ValueError: it is no `.npy` file, or one of another shape.
        ForeignNameError: see `_Unpickler`.
    """
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format is not read")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if not dtype.hasobject:
        file.seek(0)
        return npy.read_array(file, allow_pickle=False)
    if shape != ():
        raise ValueError(f"it holds objects of shape {shape}; a single dictionary is read")
    return _plain(_Unpickler(file, encoding="latin1").load())


# ------------------------------------------------------------------------------------------------------------ pickles


class _Dtype:
    """Stands for `numpy.dtype`: a type of plain numbers, or of objects."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = str(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, subarray, names, fields, *_ = state
        if subarray is not None or names is not None or fields is not None:
            raise ValueError("an array has a compound type")
        if order not in ("|", "=", "<", ">"):
            raise ValueError(f"an array has the byte order {order!r}")
        self.code = ("" if order == "|" else order) + self.code.lstrip("<>|=")

    @property
    def objects(self) -> bool:
        return self.code.startswith("O")

    def numpy(self) -> np.dtype[Any]:
        """The type.

        Raises:
            ValueError: it is none of numbers.
        """
        found = np.dtype(self.code)
        if found.kind not in KINDS:
            raise ValueError(f"an array has the type {found}")
        return found


class _Array:
    """Stands for `numpy.ndarray`: filled by its state, which holds shape, type and bytes."""

    value: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_columns, content = state
        if dtype.objects:
            if shape != () or len(content) != 1:
                raise ValueError(f"it holds objects of shape {shape}; a single dictionary is read")
            self.value = content[0]
        else:
            self.value = _from_bytes(content, dtype, shape, "F" if by_columns else "C")


def _from_bytes(content: Any, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> Array:
    """An array of bytes, which must be as many as shape and type want."""
    data = content.encode("latin1") if isinstance(content, str) else bytes(content)  # text: a pickle of Python 2
    return np.frombuffer(data, dtype.numpy()).reshape(shape, order=order)


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not _Array:
        raise ValueError("an array is of an unknown kind")
    return _Array()


def _scalar(dtype: _Dtype, content: Any) -> int | float:
    number: int | float = _from_bytes(content, dtype, (), "C").item()
    return number


def _encode(text: str, encoding: str) -> bytes:
    """Bytes that an old pickle holds as text."""
    if encoding != "latin1":
        raise ValueError(f"bytes are written in {encoding!r}")
    return text.encode("latin1")


def _from_storage(content: bytes) -> Any:
    """The numbers behind a PyTorch tensor, which PyTorch wrote; read as data too."""
    import torch

    storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return torch.tensor([], dtype=storage.dtype).set_(storage)


def _tensor(storage: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> Array:
    """A PyTorch tensor as an array; PyTorch refuses a view beyond the end of its numbers."""
    import torch

    array: Array = torch.as_strided(storage, shape, strides, offset).numpy().copy()
    return array


def _plain(value: Any) -> Any:
    """What stands in the place of arrays as arrays, in a dictionary too."""
    if isinstance(value, _Array):
        return _plain(value.value)
    return {key: _plain(part) for key, part in value.items()} if type(value) is dict else value


NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.multiarray", "scalar"): _scalar,
    ("numpy.numeric", "_frombuffer"): _from_bytes,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): dict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _from_storage,
}
"""What the pickles of arrays and tensors ask for, and what they get."""


class _Unpickler(pickle.Unpickler):
    """Reads pickles of arrays.

    Raises:
        ForeignNameError: the pickle asks for anything else.
    """

    def find_class(self, module: str, name: str) -> Any:
        known = re.sub(r"^numpy\._?core\.", "numpy.", module), name  # NumPy 2 has renamed the package
        if known not in NAMES:
            raise ForeignNameError(f"{module}.{name}")
        return NAMES[known]
