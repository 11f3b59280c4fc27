"""Reading any ordinary photograph, refusing everything else with a clear error, and the one resizer."""

import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.data.images import read_image, resize_image
from pipeline.run.errors import UserError

LIMIT = 1.0
ORIENTATION = 0x0112


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def gradient(height: int = 24, width: int = 32) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=2).astype(np.uint8)


def saved(path: Path, picture: Image.Image, **options: Any) -> Path:
    picture.save(path, **options)
    return path


def error_of(path: Path, limit: float = LIMIT) -> str:
    with pytest.raises(UserError) as caught:
        read_image(path, limit)
    assert str(path) in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------- what can be read


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp", "a.tiff", "a.ppm", "photo ü 写真.png"])
def test_colours_come_back_exactly(folder: Path, name: str) -> None:
    options = {"lossless": True} if name.endswith("webp") else {}
    image = read_image(saved(folder / name, Image.fromarray(gradient()), **options), LIMIT)
    assert image.dtype == np.uint8 and image.flags.writeable
    np.testing.assert_array_equal(image, gradient())


def test_the_extension_does_not_matter(folder: Path) -> None:
    path = saved(folder / "photo.jpg", Image.fromarray(gradient()), format="PNG")
    np.testing.assert_array_equal(read_image(path, LIMIT), gradient())


def test_greyscale_has_three_equal_channels(folder: Path) -> None:
    grey = gradient()[..., 0]
    image = read_image(saved(folder / "a.png", Image.fromarray(grey)), LIMIT)
    np.testing.assert_array_equal(image, np.repeat(grey[..., None], 3, axis=2))


def test_one_bit_becomes_black_and_white(folder: Path) -> None:
    bits = np.array([[True, False], [False, True]])
    image = read_image(saved(folder / "a.png", Image.fromarray(bits)), LIMIT)
    np.testing.assert_array_equal(image[..., 0], [[255, 0], [0, 255]])


def test_cmyk_jpeg_is_converted(folder: Path) -> None:
    path = saved(folder / "a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100)
    red, green, blue = read_image(path, LIMIT)[4, 4]
    assert red > 250 and green < 5 and blue < 5


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bits_are_scaled_not_clipped(folder: Path, suffix: str) -> None:
    levels = np.array([[0, 257, 128 * 257, 255 * 257]], dtype=np.uint16)
    image = read_image(saved(folder / f"a.{suffix}", Image.fromarray(levels)), LIMIT)
    np.testing.assert_array_equal(image[0, :, 1], [0, 1, 128, 255])


def test_alpha_is_laid_on_white(folder: Path) -> None:
    pixels = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 0, 0, 51]]], dtype=np.uint8)
    image = read_image(saved(folder / "a.png", Image.fromarray(pixels)), LIMIT)
    np.testing.assert_array_equal(image[0], [[255] * 3, [10, 20, 30], [204] * 3])


def test_grey_with_alpha_is_laid_on_white(folder: Path) -> None:
    path = saved(folder / "a.png", Image.merge("LA", (Image.new("L", (2, 1), 7), Image.new("L", (2, 1), 0))))
    assert (read_image(path, LIMIT) == 255).all()


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_transparent_palette_colour_becomes_white(folder: Path, suffix: str) -> None:
    picture = Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).convert("P")
    picture.putpalette([200, 0, 0, 0, 0, 200])
    image = read_image(saved(folder / f"a.{suffix}", picture, transparency=0), LIMIT)
    np.testing.assert_array_equal(image[0], [[255, 255, 255], [0, 0, 200]])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(folder: Path, orientation: int) -> None:
    upright = gradient()
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
    }
    turns |= {5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE}
    turns |= {8: Image.Transpose.ROTATE_270}
    stored = Image.fromarray(upright)
    stored = stored.transpose(turns[orientation]) if orientation in turns else stored
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    for name in ("a.png", "a.tiff"):
        np.testing.assert_array_equal(read_image(saved(folder / name, stored, exif=exif), LIMIT), upright)
    assert read_image(saved(folder / "a.jpg", stored, exif=exif), LIMIT).shape == upright.shape


def test_first_of_several_frames_counts(folder: Path) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    path = saved(folder / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(path, LIMIT)[0, 0], [255, 0, 0])


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_one_pixel(folder: Path, suffix: str) -> None:
    path = saved(folder / f"a.{suffix}", Image.new("RGB", (1, 1), "white"))
    np.testing.assert_array_equal(read_image(path, LIMIT), np.full((1, 1, 3), 255))


# -------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tiff", "bmp"])
def test_truncated_files_are_refused(folder: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
    path = saved(folder / f"a.{suffix}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "take it out of the data set" in error_of(path)


def test_other_files_are_refused(folder: Path) -> None:
    (folder / "text.jpg").write_text("this is no photograph")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (folder / "sub.jpg").mkdir()
    assert "is no image (JPEG, PNG" in error_of(folder / "text.jpg")
    assert "the file is empty" in error_of(folder / "empty.jpg")
    assert "is no image" in error_of(folder / "page.eps")
    assert "not found" in error_of(folder / "sub.jpg")
    assert "not found" in error_of(folder / "missing.jpg")


def test_floating_point_and_32_bit_files_are_refused(folder: Path) -> None:
    floats = saved(folder / "f.tiff", Image.fromarray(np.ones((2, 2), dtype=np.float32)))
    wide = saved(folder / "i.tiff", Image.fromarray(np.full((2, 2), 70000, dtype=np.int32)))
    assert "mode F" in error_of(floats)
    assert "more than 16 bits" in error_of(wide)


def test_too_many_pixels_are_refused_before_decoding(folder: Path) -> None:
    path = saved(folder / "a.png", Image.new("L", (1001, 1000)))
    path.write_bytes(path.read_bytes()[:60])  # decoding would fail otherwise
    message = error_of(path)
    assert "1001 x 1000 pixels" in message and "data.max_megapixels = 1;" in message


def test_the_limit_itself_is_allowed(folder: Path) -> None:
    path = saved(folder / "a.png", Image.new("L", (1000, 1000)))
    assert read_image(path, LIMIT).shape == (1000, 1000, 3)


def test_huge_headers_give_our_error_and_no_warning(folder: Path, recwarn: pytest.WarningsRecorder) -> None:
    for side in (11_000, 40_000):  # Pillow by itself warns at the first and raises at the second
        path = saved(folder / "a.png", Image.new("1", (8, 8)))
        data = bytearray(path.read_bytes())
        data[16:24] = side.to_bytes(4, "big") * 2
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
        path.write_bytes(data)
        assert f"{side} x {side} pixels" in error_of(path)
    assert not recwarn.list


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow, on damaged metadata
@settings(max_examples=60, deadline=None)
@given(suffix=st.sampled_from(["jpg", "png", "gif", "tiff", "webp", "bmp"]), data=st.data())
def test_damaged_bytes_give_an_image_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damaged") / f"a.{suffix}"
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(gradient(8, 8)).save(path, exif=exif)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        image = read_image(path, LIMIT)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


# --------------------------------------------------------------------------------------------------- resizing


def test_resizing_is_torchvisions_antialiased_bicubic() -> None:
    import torch
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import resize

    noise = np.random.default_rng(0).integers(0, 256, size=(40, 60, 3), dtype=np.uint8)
    for size in ((20, 30), (13, 41), (80, 90), (40, 60), (1, 1)):
        tensor = torch.tensor(noise).permute(2, 0, 1)
        expected = resize(tensor, list(size), interpolation=InterpolationMode.BICUBIC, antialias=True)
        result = resize_image(noise, size)
        assert result.shape == (*size, 3) and result.dtype == np.uint8 and result.flags.c_contiguous
        np.testing.assert_array_equal(result, expected.permute(1, 2, 0).numpy())


def test_resizing_averages_fine_texture() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    inner = resize_image(stripes, (16, 16))[:, 2:-2]
    assert np.abs(inner.astype(int) - 127).max() <= 2


def test_resizing_leaves_its_input_alone_and_takes_views() -> None:
    image = gradient()
    image.flags.writeable = False
    mirrored = resize_image(image[:, ::-1], (12, 16))
    np.testing.assert_allclose(mirrored[:, ::-1].astype(int), resize_image(image, (12, 16)), atol=1)
    np.testing.assert_array_equal(image, gradient())


@pytest.mark.parametrize("suffix", ["avif", "jp2"])
def test_formats_of_newer_cameras_are_read(folder: Path, suffix: str) -> None:
    image = read_image(saved(folder / f"a.{suffix}", Image.new("RGB", (40, 30), (200, 30, 30))), LIMIT)
    assert image.shape == (30, 40, 3) and abs(image[10, 10].astype(int) - (200, 30, 30)).max() <= 8


def test_photographs_of_phones_are_read_where_the_plugin_is(folder: Path) -> None:
    plugin = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    plugin.from_pillow(Image.new("RGB", (64, 48), (30, 200, 30))).save(folder / "a.heic")
    image = read_image(folder / "a.heic", LIMIT)
    assert image.shape == (48, 64, 3) and abs(image[10, 10].astype(int) - (30, 200, 30)).max() <= 8


def test_a_missing_plugin_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (folder / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(UserError, match=r"a\.heic: HEIC is read by a plug-in of Pillow: `pip install pillow-heif`"):
        read_image(folder / "a.heic", LIMIT)


@pytest.mark.parametrize(("long_side", "expected"), [(None, 2400), (1201, 2400), (1200, 2400), (600, 1200), (100, 300)])
def test_large_jpegs_are_decoded_no_larger_than_needed(folder: Path, long_side: float | None, expected: int) -> None:
    smooth = gradient(180, 240).repeat(10, axis=0).repeat(10, axis=1)
    path = saved(folder / "a.jpg", Image.fromarray(smooth), quality=95)
    image = read_image(path, long_side=long_side)
    assert image.shape == (expected * 3 // 4, expected, 3)
    small = resize_image(image, (72, 96)).astype(int)
    assert abs(small - resize_image(read_image(path), (72, 96))).mean() < 1.5


def test_small_jpegs_and_other_files_are_decoded_whole(folder: Path) -> None:
    assert read_image(saved(folder / "a.jpg", Image.new("RGB", (2000, 1900))), long_side=50).shape == (1900, 2000, 3)
    assert read_image(saved(folder / "a.png", Image.new("RGB", (2400, 1800))), long_side=50).shape == (1800, 2400, 3)


def test_rotated_jpegs_are_upright_at_every_size(folder: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = saved(folder / "a.jpg", Image.new("RGB", (2400, 1800)), exif=exif)
    assert read_image(path, long_side=100).shape == (300, 225, 3)
