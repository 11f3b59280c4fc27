"""Dictionaries of arrays in pickles are read as data; whatever else a pickle asks for is refused, and does not run."""

from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.data.arrays import read_arrays
from pipeline.run.errors import UserError

MAP = np.random.default_rng(0).random((3, 4), dtype=np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.npy"


def write_pickle(path: Path, content: Any, protocol: int) -> None:
    """An `.npy` file of one object, as NumPy of some year wrote it."""
    array = np.empty((), dtype=object)
    array[()] = content
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    path.write_bytes(header.getvalue() + pickle.dumps(array, protocol=protocol))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_dictionaries_of_every_protocol_are_read(path: Path, protocol: int) -> None:
    content = {np.int64(14): MAP, 3: np.asfortranarray(MAP), 5: MAP.astype(">f8"), "keys": [14, 3, 5]}
    write_pickle(path, content, protocol)
    found = read_arrays(path)
    assert list(found) == [14, 3, 5, "keys"]
    for key in (14, 3, 5):
        np.testing.assert_array_equal(found[key], MAP)
    np.testing.assert_array_equal(found["keys"], [14, 3, 5])


def test_names_of_earlier_numpy_are_known(path: Path) -> None:
    write_pickle(path, {0: MAP}, 2)
    old = path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != path.read_bytes()
    path.write_bytes(old)
    np.testing.assert_array_equal(read_arrays(path)[0], MAP)


def test_tensors_of_pytorch_are_arrays(path: Path) -> None:
    strided = torch.from_numpy(np.stack([MAP, MAP + 1]))
    np.save(path, {"keys": torch.tensor([[2], [9]])[:, 0], "cam": strided.transpose(1, 2)})  # type: ignore[arg-type]
    found = read_arrays(path)
    np.testing.assert_array_equal(found["keys"], [2, 9])
    np.testing.assert_array_equal(found["cam"], strided.transpose(1, 2).numpy())


def test_members_of_npz_are_named_by_number(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"3": MAP, "cam": MAP})  # type: ignore[arg-type]
    assert set(read_arrays(tmp_path / "a.npz")) == {3, "cam"}
    np.savez(tmp_path / "b.npz", {3: MAP})  # type: ignore[arg-type]
    assert set(read_arrays(tmp_path / "b.npz")) == {3}


class Command:
    """What an attacker puts into a pickle."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call, self.arguments


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (os.system, "posix.system"),
        (eval, "builtins.eval"),
        (getattr, "builtins.getattr"),
        (np.load, "numpy.load"),
        (torch.load, "torch.serialization.load"),
    ],
)
@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_a_malicious_pickle_does_nothing_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any, name: str, ending: str
) -> None:
    monkeypatch.chdir(tmp_path)
    content: Any = {0: MAP, 1: Command(call, "touch hacked" if call is os.system else "open('hacked', 'w')")}
    path = Path(f"a{ending}")
    (np.save if ending == ".npy" else np.savez)(path, content)
    with pytest.raises(UserError, match=rf"{path}: it holds {name}, which is no array.*nothing of it was run"):
        read_arrays(path)
    assert not Path("hacked").exists()


def test_a_pickle_inside_a_tensor_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inner = io.BytesIO()
    torch.save(Command(os.system, "touch hacked"), inner, _use_new_zipfile_serialization=False)
    load = torch.storage._load_from_bytes
    rebuild = torch._utils._rebuild_tensor_v2
    numbers = Command(rebuild, Command(load, inner.getvalue()), 0, (1,), (1,), False, OrderedDict())
    np.save("a.npy", {0: numbers})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="cannot be read as arrays"):
        read_arrays(Path("a.npy"))
    assert not Path("hacked").exists()


def forged(shape: Any, dtype: Any, content: Any) -> Command:
    """An array whose state is not what NumPy would write."""

    class Forged(Command):
        def __reduce__(self) -> tuple[Any, ...]:
            array = np.zeros(0).__reduce__()
            return array[0], array[1], (1, shape, dtype, False, content)

    return Forged(None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({0: forged((1000, 1000), np.dtype("f4"), b"1234")}, "cannot be read as arrays"),
        ({0: forged((2,), np.dtype("O"), [1, 2])}, r"objects of shape \(2,\)"),
        ({0: np.zeros(2, dtype=[("a", "f4")])}, "compound type"),
        ({0: np.array(["a", "b"])}, "an array has the type <U1"),
        ({0: "a text"}, "entry 0 is no array of numbers"),
        ({(0, 1): MAP}, r"key \(0, 1\)"),
        ([MAP], "without a name"),
    ],
)
def test_what_is_no_dictionary_of_numbers_is_refused(path: Path, content: Any, words: str) -> None:
    write_pickle(path, content, 4)
    with pytest.raises(UserError, match=words):
        read_arrays(path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x09\x00" + bytes(200)])
def test_damaged_files_are_named(path: Path, content: bytes) -> None:
    for found in (path, path.with_suffix(".npz")):
        found.write_bytes(content)
        with pytest.raises(UserError, match=rf"{found.name}: cannot be read as arrays"):
            read_arrays(found)
    with pytest.raises(UserError, match="not found"):
        read_arrays(path.with_name("lost.npy"))


def test_a_file_cut_short_anywhere_is_refused(path: Path) -> None:
    write_pickle(path, {0: MAP}, 4)
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(UserError):
            read_arrays(path)
