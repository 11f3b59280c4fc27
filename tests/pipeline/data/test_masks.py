"""Masks are read as they were written, and refused where a decoder would change their labels."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.masks import read_mask, whole, write_mask
from pipeline.run.errors import UserError

LABELS = np.array([[0, 1, 2], [3, 1, 0]], dtype=np.uint8)


@pytest.mark.parametrize("damage", ["none", "missing", "empty", "cut", "flipped"])
def test_damaged_masks_are_not_whole(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.png"
    write_mask(path, np.arange(24, dtype=np.uint8).reshape(4, 6))
    data = path.read_bytes()
    place = data.index(b"IDAT") + 8
    flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    path.write_bytes({"empty": b"", "cut": data[:-20], "flipped": flipped}.get(damage, data))
    if damage == "missing":
        path.unlink()
    assert whole(path) == (damage == "none")
    assert ("damaged" in capsys.readouterr().out) == (damage in ("empty", "cut", "flipped"))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_mask(tmp_path / "mask.png", LABELS)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", (2, 3)), LABELS)


def test_eight_bit_grey_and_narrow_palettes_are_read(tmp_path: Path) -> None:
    Image.fromarray(LABELS).save(tmp_path / "grey.png")
    indexed = Image.fromarray(LABELS, mode="P")
    indexed.putpalette([0, 0, 0, 9, 9, 9, 99, 99, 99, 200, 0, 0])
    indexed.save(tmp_path / "two bits.png", bits=2)
    for name in ("grey", "two bits"):
        np.testing.assert_array_equal(read_mask(tmp_path / f"{name}.png", (2, 3)), LABELS)


@pytest.mark.parametrize(("bits", "mode"), [(1, "1"), (2, "L;2"), (4, "L;4")])
def test_narrow_grey_is_refused(tmp_path: Path, bits: int, mode: str) -> None:
    """A decoder stretches its levels to 255: 0 1 2 3 become 0 85 170 255."""
    path = tmp_path / "mask.png"
    write_grey(path, np.minimum(LABELS, 2**bits - 1), bits)
    with pytest.raises(UserError, match=f"mask.png: mode {mode}; a mask is an indexed or 8-bit grey PNG"):
        read_mask(path, (2, 3))


def write_grey(path: Path, labels: np.ndarray, bits: int) -> None:
    """A greyscale PNG of fewer than 8 bits, which Pillow itself does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    planes = (labels[..., None] >> np.arange(bits)[::-1]) & 1
    rows = np.packbits(planes.reshape(len(labels), -1), axis=1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", labels.shape[1], labels.shape[0], bits, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16"])
def test_colours_are_no_labels(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (3, 2)).save(tmp_path / "mask.png")
    with pytest.raises(UserError, match="a mask is an indexed or 8-bit grey PNG"):
        read_mask(tmp_path / "mask.png", (2, 3))


def test_jpeg_under_the_name_of_a_png_is_refused(tmp_path: Path) -> None:
    Image.fromarray(LABELS).save(tmp_path / "mask.png", format="JPEG")
    with pytest.raises(UserError, match=r"no PNG; .* since JPEG changes labels"):
        read_mask(tmp_path / "mask.png", (2, 3))


def test_masks_have_the_size_of_their_photographs(tmp_path: Path) -> None:
    write_mask(tmp_path / "mask.png", LABELS)
    with pytest.raises(UserError, match="mask of 3x2 for a photograph of 2x3"):
        read_mask(tmp_path / "mask.png", (3, 2))
