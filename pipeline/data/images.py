"""Photographs: any ordinary file becomes upright RGB, anything else a clear error; and the one resizer."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.run.errors import UserError

# Decoders that run other programs (EPS) or that no photograph needs stay away from untrusted files.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
HEIF = "HEIF"  # what phones call HEIC; Pillow reads it through a plug-in
SUFFIXES = {
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
}
SUFFIXES |= {".avif", ".jp2", ".j2k", ".heic", ".heif", ".hif"}
"""How names of photographs end, in lower case."""
BRANDS = {HEIF: (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"), "AVIF": (b"avif", b"avis")}
"""What stands in the head of files whose format Pillow may lack."""
PLUGINS = {
    HEIF: "HEIC is read by a plug-in of Pillow: `pip install pillow-heif`",
    "AVIF": "AVIF is read by Pillow from version 11.3 on: `pip install --upgrade pillow`",
}
WHOLE_MEGAPIXELS = 4.0  # JPEGs up to it are always decoded whole: data sets of web size keep their pixels
SMALLEST_SIDE = 32  # of a view for a network, in pixels: two cells of a stride-16 grid
EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")

# Pillow's own limit is one number per process and at first only warns; `read_image` checks before decoding.
Image.MAX_IMAGE_PIXELS = None


def read_image(path: Path, max_megapixels: float = math.inf, long_side: float | None = None) -> NDArray[np.uint8]:
    """Read a photograph as 8-bit RGB, upright as its EXIF orientation says.

    Greyscale, 1-bit, palette, CMYK and 16-bit files are converted (16 bits are scaled, not clipped);
    transparency is laid on white; of several frames the first one counts.

    Args:
        path: a file in one of `FORMATS`.
        max_megapixels: largest width x height accepted, in millions; checked in the header, before decoding.
        long_side: the longest side that it will be shown at, in pixels; a JPEG of more than `WHOLE_MEGAPIXELS` is then
            decoded at a half, a quarter or an eighth of its size, of at least twice that side. None: decoded whole.

    Returns:
        (H, W, 3) uint8, 0 to 255.

    Raises:
        UserError: the file is missing, empty, no image, damaged, too large, or holds no 8- or 16-bit colours.
    """
    try:
        if not path.is_file():
            raise UserError(f"{path}: not found; restore the file or take it out of the data set")
        with Image.open(path, formats=_formats(path)) as picture:
            _check_size(path, picture.size, max_megapixels)
            if long_side is not None and math.prod(picture.size) > WHOLE_MEGAPIXELS * 1e6:
                shrink = 2 * long_side / max(picture.size)
                picture.draft("RGB", (math.ceil(picture.width * shrink), math.ceil(picture.height * shrink)))
            return _upright_rgb(picture)
    except UserError:
        raise
    except UnidentifiedImageError as error:
        what = PLUGINS.get(_rare_format(path), "is no image") if path.stat().st_size else "the file is empty"
        known = ", ".join(FORMATS)
        raise UserError(f"{path}: {what} ({known} are read); replace it or take it out of the data set") from error
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        advice = "save it again as 8-bit JPEG or PNG, or take it out of the data set"
        raise UserError(f"{path}: cannot be decoded ({error or type(error).__name__}); {advice}") from error


def _rare_format(path: Path) -> str:
    """HEIF or AVIF, as the head of a file says; nothing for other files."""
    with path.open("rb") as handle:
        start = handle.read(12)
    return next((name for name, brands in BRANDS.items() if start[4:8] == b"ftyp" and start[8:] in brands), "")


def _formats(path: Path) -> tuple[str, ...]:
    """What Pillow may read a file as; the plug-in for HEIC is loaded where there is such a file and it is installed."""
    if _rare_format(path) == HEIF:
        with suppress(ImportError):
            from pillow_heif import register_heif_opener

            register_heif_opener()
            return (*FORMATS, HEIF)
    return FORMATS


def as_photograph(image: str | Path | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A photograph (H, W, 3) uint8, given as a file or as that array.

    Raises:
        UserError: the file cannot be read, or the array is no such picture.
    """
    pixels = image if isinstance(image, np.ndarray) else read_image(Path(image))
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise UserError(f"a photograph is RGB (H, W, 3) of uint8; this array is {pixels.shape} of {pixels.dtype}")
    return pixels


def _check_size(path: Path, size: tuple[int, int], max_megapixels: float) -> None:
    width, height = size
    if width * height > max_megapixels * 1e6:
        raise UserError(
            f"{path}: {width} x {height} pixels are {width * height / 1e6:.6g} megapixels, more than "
            f"data.max_megapixels = {max_megapixels:g}; shrink the image or raise that limit"
        )


def _upright_rgb(picture: Image.Image) -> NDArray[np.uint8]:
    picture = ImageOps.exif_transpose(picture)
    if min(picture.size) < 1:
        raise ValueError("it has no pixels")
    if picture.mode in SIXTEEN_BIT:
        return np.repeat(_eight_bit(np.asarray(picture))[..., None], 3, axis=2)
    if picture.mode not in EIGHT_BIT:
        raise ValueError(f"mode {picture.mode} holds no 8- or 16-bit colours")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return np.array(picture.convert("RGB"))


def _eight_bit(values: NDArray[np.integer]) -> NDArray[np.uint8]:
    """16-bit grey levels to 8 bits, rounded: 65535 / 257 = 255."""
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("it holds grey levels of more than 16 bits")
    return ((values.astype(np.int32) + 128) // 257).astype(np.uint8)


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a photograph; the only resizer for images in this project.

    It is `torchvision.transforms.v2.functional.resize` on a uint8 tensor, bicubic, with antialiasing. Other
    resizers differ by many grey levels when they shrink, and so would every number measured later.

    Args:
        image: (H, W, 3) uint8.
        size: height and width wanted, in pixels.

    Returns:
        (height, width, 3) uint8.
    """
    import torch
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import resize

    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)
    resized = resize(tensor, list(size), interpolation=InterpolationMode.BICUBIC, antialias=True)
    return np.ascontiguousarray(resized.permute(1, 2, 0).numpy())


def resize_grey(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Values (H, W) at another size (height, width), bilinear, with antialiasing."""
    if values.shape == size:
        return values
    return np.array(Image.fromarray(values, mode="F").resize(size[::-1], Image.Resampling.BILINEAR))


def resize_labels(labels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Labels (H, W) at another size (height, width), each pixel from the nearest pixel centre."""
    if labels.shape == size:
        return labels
    return np.array(Image.fromarray(labels).resize(size[::-1], Image.Resampling.NEAREST))


def view_size(size: tuple[int, int], scale: float, long_side: int | None, square: bool) -> tuple[int, int]:
    """Height and width of the view of a photograph at a scale.

    Args:
        size: of the photograph.
        scale: factor on the view's sides.
        long_side: the longer side at scale 1; None: the photograph's own.
        square: the view is a square of that side.
    """
    side = long_side or max(size)
    if square:
        return (max(SMALLEST_SIDE, round(side * scale)),) * 2
    height, width = scaled_size(size, side)
    return scaled_size((height, width), max(height, width) * scale, SMALLEST_SIDE)


def scaled_size(size: tuple[int, int], long_side: float | None, smallest: int = 1) -> tuple[int, int]:
    """Height and width with the longer side `long_side` (None: unchanged) and no side below `smallest`."""
    factor = 1.0 if long_side is None else long_side / max(size)
    return max(smallest, round(size[0] * factor)), max(smallest, round(size[1] * factor))
