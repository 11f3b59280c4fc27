"""Mask files: indexed PNG with the VOC palette, so that a mask is both data and a picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from models.labels import IGNORE
from pipeline.run.errors import UserError
from pipeline.run.files import write_atomic


def voc_palette() -> NDArray[np.uint8]:
    """(256, 3) colours of the VOC devkit: bit k of a channel comes from bit 3k (+0, 1, 2) of the label."""
    labels = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def write_mask(path: Path, labels: NDArray[np.uint8]) -> None:
    """Write labels (H, W) as an indexed PNG; 255 means ignored."""
    data = encoded_mask(labels)
    write_atomic(path, lambda temporary: temporary.write_bytes(data))


def encoded_mask(labels: NDArray[np.uint8]) -> bytes:
    """The bytes of an indexed PNG of labels (H, W)."""
    picture = Image.fromarray(np.ascontiguousarray(labels), mode="P")
    picture.putpalette(voc_palette().tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def whole(path: Path) -> bool:
    """Whether a mask is there and its checksums fit; one that is damaged is said, and made anew by who asks."""
    if not path.exists():
        return False
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            picture.verify()
        return True
    except (OSError, SyntaxError, ValueError):
        print(f"WARNING: {path} is damaged; it is made anew", flush=True)
        return False


def read_mask(path: Path, size: tuple[int, int], data: bytes | None = None) -> NDArray[np.uint8]:
    """Read labels (H, W) from an indexed or 8-bit greyscale PNG.

    Args:
        path: the file.
        size: height and width that it must have, checked before anything is decoded.
        data: the PNG's bytes where `path`, then for messages alone, is a file of many; None: the file's own.

    Raises:
        UserError: the file is missing, no PNG, damaged, of another size, or holds colours instead of labels.
    """
    return _read_labels(path, size, ("P", "L"), data).astype(np.uint8)


def read_segments(path: Path, size: tuple[int, int]) -> NDArray[np.uint16]:
    """Read numbers (H, W) of segments, of which there may be more than 255: a greyscale PNG of 16 bits is read too.

    Raises:
        UserError: as `read_mask`.
    """
    return _read_labels(path, size, ("P", "L", "I;16")).astype(np.uint16)


def _read_labels(
    path: Path, size: tuple[int, int], modes: tuple[str, ...], data: bytes | None = None
) -> NDArray[np.integer]:
    """Labels of a PNG in one of some modes of Pillow's; see `read_mask`.

    Grey of 1, 2 or 4 bits is refused: decoders stretch it to 255, so that a label is read as another one.
    """
    try:
        with Image.open(path if data is None else io.BytesIO(data), formats=["PNG"]) as picture:
            picture.verify()  # its checksums, which decoding alone does not look at
        with Image.open(path if data is None else io.BytesIO(data), formats=["PNG"]) as picture:
            if (picture.height, picture.width) != size:
                raise UserError(
                    f"{path}: mask of {picture.width}x{picture.height} for a photograph of {size[1]}x{size[0]}; "
                    "a mask has the size of its photograph, upright after EXIF rotation"
                )
            if picture.mode not in modes or picture.mode == "L" != picture.tile[0].args:
                what = picture.tile[0].args if picture.mode == "L" else picture.mode
                raise UserError(f"{path}: mode {what}; a mask is an indexed or 8-bit grey PNG, one label per pixel")
            return np.array(picture)
    except FileNotFoundError as error:
        raise UserError(f"{path}: mask not found") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: no PNG; a mask is an indexed or 8-bit grey PNG, since JPEG changes labels") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: mask cannot be read ({error})") from error


def known_labels(
    path: Path, labels: NDArray[np.uint8], label_map: NDArray[np.uint8] | None, classes: int
) -> NDArray[np.uint8]:
    """The labels of a mask file in this project's numbers.

    Args:
        path: of the file, for messages.
        labels: (H, W) as a reader gives them.
        label_map: 256 labels of this project by label of the file; None where labels are this project's.
        classes: how many there are, without background.

    Raises:
        UserError: a label is that of no class.
    """
    ours = labels if label_map is None else label_map[labels]
    if (unknown := labels[(ours > classes) & (ours != IGNORE)]).size:
        raise UserError(
            f"{path}: label {unknown.max()} in the mask is that of no class; labels are 0 (background), the number of "
            "a class (docs/own_photographs.md) and 255 (void)"
        )
    return ours
