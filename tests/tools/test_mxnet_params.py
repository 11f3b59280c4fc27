"""MXNet's parameter files: every version of the format, and what is wrong with damaged ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.mxnet import MAGICS, params_bytes, write_params
from tools.mxnet_params import read_params

ARRAYS: dict[str, NDArray[Any]] = {
    "arg:conv_weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4, 1),
    "aux:bn_moving_mean": np.array([0.5, -1], dtype=np.float16),
    "arg:counts": np.array([[1, 2**40]], dtype=np.int64),
}


@pytest.mark.parametrize("version", MAGICS)
def test_every_version_is_read(version: int, tmp_path: Path) -> None:
    write_params(tmp_path / "a.params", ARRAYS, version)
    found = read_params(tmp_path / "a.params")
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array)


WHOLE = params_bytes(ARRAYS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it ends at byte 0"),
        (b"PK\x03\x04" * 9, "it is no file of MXNet parameters"),
        (WHOLE[:-1], "within an entry"),
        (WHOLE[:60], "within an entry"),
        (WHOLE.replace(b"\xc9\xfa\x93\xf9\x00", b"\xc9\xfa\x93\xf9\x01", 1), "it has a sparse array"),
        (WHOLE.replace(b"aux:bn_moving_mean", b"arg:conv_weight\0\0\0"), ""),
    ],
)
def test_damaged_files_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.params").write_bytes(data)
    if message:
        with pytest.raises(ValueError, match=message):
            read_params(tmp_path / "a.params")
    else:
        assert len(read_params(tmp_path / "a.params")) == len(ARRAYS)


@given(place=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255))
def test_any_byte_may_be_wrong(place: int, value: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("damaged") / "a.params"
    path.write_bytes(WHOLE[:place] + bytes([value]) + WHOLE[place + 1 :])
    try:
        read_params(path)
    except ValueError as error:
        assert str(error)
