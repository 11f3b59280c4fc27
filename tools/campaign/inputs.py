"""Bad inputs of every kind: each is refused in a sentence that names it, or read as it is meant."""

from __future__ import annotations

import argparse
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline import prepare_data
from pipeline.config.load import load_params
from pipeline.data.manifest import PREPARED, load_manifest
from pipeline.data.sources.source import PrepareDataConfig
from pipeline.run.errors import UserError
from pipeline.run.files import read_json, write_json
from pipeline.run.told import CONFIG, Runtime
from pipeline.training.weights import read_state
from tools.campaign.tries import Try

HEADER = "image,labels,split\n"
GOOD = HEADER + "a.png,cat,train\nb.png,dog,val\n"
SHIPPED = "params.yaml"


def bad_inputs(repository: Path) -> Iterator[Try]:
    """Try every bad input, each in a folder of its own."""
    shipped = (repository / SHIPPED).read_text(encoding="utf-8")
    kinds: dict[str, tuple[Callable[[Any], object], dict[str, tuple[Any, str]]]] = {
        "table of tags": (prepared_with_table, TABLES),
        "photograph": (prepared_with_photograph, photographs()),
        "mask": (prepared_with_mask, masks()),
        "params.yaml": (lambda change: load_params(written(SHIPPED, change(shipped))), PARAMS),
        "file of weights": (lambda write: read_state(writes("weights.pth", write)), WEIGHTS),
    }
    for kind, (use, inputs) in kinds.items():
        for what, (content, words) in inputs.items():
            yield Try(f"bad {kind}", what, wrong_about(use, content, words))


def wrong_about(use: Callable[[Any], object], content: Any, words: str) -> str:
    """What is wrong with how an input is taken.

    Args:
        use: reads it, in a folder of its own.
        content: the input.
        words: of the sentence that refuses it; empty where it is to be read.
    """
    with TemporaryDirectory() as folder, chdir(folder), redirect_stdout(io.StringIO()):
        try:
            use(content)
        except UserError as error:
            return "" if words and words in str(error) else f"it says: {error}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return f"it is read, though {words!r} was expected" if words else ""


def written(name: str, content: str | bytes) -> Path:
    """A file with a content."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def writes(name: str, write: Callable[[Path], object]) -> Path:
    """A file that something has written."""
    write(Path(name))
    return Path(name)


# ----------------------------------------------------------------------------------------------------- a folder of data


def prepared(masks: str | None = None) -> None:
    """Run prepare_data on the folder `photos`."""
    source = {"tags": "labels.csv", "images": ".", "masks": masks, "val_share": 0.5}
    knobs = {"name": "folder", "root": "photos", "classes": "all", "limit": None, "max_megapixels": 60.0}
    config = PrepareDataConfig.model_validate(knobs | {"source": source})
    write_json(CONFIG / "prepare_data.json", config.model_dump(mode="json"))
    prepare_data.main(Runtime(root="photos", device="cpu", processes=1, workers=1))


def good_folder(*names: str) -> None:
    """Two photographs with a table of tags."""
    Path("photos").mkdir()
    written("photos/labels.csv", GOOD)
    for number, name in enumerate(("a.png", "b.png")):
        Image.fromarray(np.full((4, 6, 3), 90 * number, np.uint8)).save(Path("photos", name))


def prepared_with_table(table: str | bytes) -> None:
    """Read a table of tags; those that are read give both classes."""
    good_folder()
    written("photos/labels.csv", table)
    prepared()
    if set(load_manifest().classes) != {"cat", "dog"} and b"\xc3" not in written("x", table).read_bytes():
        raise ValueError(f"classes {load_manifest().classes}")


def prepared_with_photograph(write: Callable[[Path], object]) -> None:
    """Read a photograph."""
    good_folder()
    write(Path("photos/a.png"))
    prepared()


def prepared_with_mask(write: Callable[[Path], object]) -> None:
    """Read a mask of a photograph of 6 x 4."""
    good_folder()
    Path("photos/masks").mkdir()
    write(Path("photos/masks/a.png"))
    prepared("masks")
    if read_json(PREPARED / "ground_truth.json", "")["masks"] != {"a": "masks/a.png"}:
        raise ValueError("the mask is not known")


TABLES: dict[str, tuple[Any, str]] = {
    "byte order mark, spaces, Windows line ends": (
        "\ufeffimage, labels ,split\r\n a.png, cat ,train\r\nb.png,dog,VAL\r\n",
        "",
    ),
    "repeated row": (GOOD + "a.png,cat,train\n", ""),
    "one row for each tag": (GOOD + "a.png,dog,train\n", ""),
    "a column for each class": ("file,cat,dog,split\na.png,1,0,train\nb.png,0,1,val\n", ""),
    "UTF-16": (GOOD.encode("utf-16"), ""),
    "Latin-1": ("image,labels,split,by\na.png,cat,train,René\nb.png,dog,val,\n".encode("latin-1"), ""),
    "semicolons": (GOOD.replace(",", ";"), ""),
    "labels with commas": (HEADER + 'a.png,"cat,dog",train\nb.png,dog,val\n', ""),
    "a comma in a label": (HEADER + 'a.png,"cat,dog",train\nb.png,,val\n', "one class or several"),
    "empty": ("", "is empty; a table that works"),
    "header alone": (HEADER, "has a header but no rows"),
    "no known header": (GOOD.replace("image", "picture"), "names no column of photographs"),
    "workbook": (b"PK\x03\x04" + bytes(20), "save its sheet as CSV UTF-8"),
    "labels that look alike": (GOOD.replace("dog", "Cat"), "look alike; write them in one way"),
    "invisible sign in a label": (GOOD.replace("dog", "cat\u200b"), "look alike; write them in one way"),
    "class named background": (GOOD.replace("dog", "Background"), "a class is named background"),
    "open quotation mark": (HEADER + 'a.png,"cat,train\nb.png,dog,val\n', "line 2: 2 fields where the header has 3"),
    "row that contradicts another": (GOOD + "a.png,dog|cat,train\n", "stands in line 2 with other labels"),
    "photograph that is missing": (GOOD + "c.png,cat,val\n", "c.png not found"),
    "path out of the folder": (GOOD + "../labels.csv,cat,val\n", "leads out of photos"),
    "absolute path": (GOOD + "/etc/hostname,cat,val\n", "leads out of photos"),
    "unknown split": (GOOD.replace("val", "test"), "is not one of train, val"),
    "no validation photograph": (HEADER + "a.png,cat,train\nb.png,dog,train\n", "is in the split val"),
    "no label at all": (HEADER + "a.png,,train\nb.png,,val\n", "there are no classes"),
}


def photographs() -> dict[str, tuple[Any, str]]:
    """Photographs, each as what writes it."""
    red = Image.new("RGB", (6, 4), "red")
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(whole, "PNG")
    return {
        "JPEG named .png": (lambda path: red.save(path, "JPEG"), ""),
        "grey of 16 bits": (lambda path: Image.fromarray(np.full((4, 6), 40_000, np.uint16)).save(path), ""),
        "CMYK": (lambda path: red.convert("CMYK").save(path, "JPEG"), ""),
        "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
        "text": (lambda path: path.write_text("red"), "is no image"),
        "cut off": (lambda path: path.write_bytes(whole.getvalue()[:-400]), "cannot be decoded"),
        "header of 179 megapixels": (lambda path: path.write_bytes(bomb(13_379, 13_379)), "megapixels, more than"),
        "header of 4 million megapixels": (lambda path: path.write_bytes(bomb(2**21, 2**21)), "megapixels, more than"),
        "EPS named .png": (lambda path: red.save(path, "EPS"), "is no image"),
        "floating-point TIFF": (lambda path: Image.new("F", (6, 4)).save(path, "TIFF"), "cannot be decoded"),
    }


def bomb(width: int, height: int) -> bytes:
    """A PNG that says that it is large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def masks() -> dict[str, tuple[Any, str]]:
    """Masks, each as what writes it."""
    labels = Image.fromarray(np.array([[0, 1, 2, 255, 0, 1]] * 4, np.uint8))
    binary = Image.fromarray(np.array([[0, 255, 255, 255, 0, 0]] * 4, np.uint8))
    return {
        "grey of 8 bits": (lambda path: labels.save(path), ""),
        "indexed": (lambda path: labels.convert("P").save(path), ""),
        **{
            f"grey of {bits} bits": (lambda path, bits=bits: path.write_bytes(narrow(bits)), "8-bit grey PNG")
            for bits in (1, 2, 4)
        },
        "0 and 255 alone": (lambda path: binary.save(path), "255 is void here"),
        "JPEG named .png": (lambda path: labels.save(path, "JPEG"), "no PNG"),
        "colours": (lambda path: Image.new("RGB", (6, 4)).save(path), "indexed or 8-bit grey PNG"),
        "another size": (lambda path: Image.new("L", (4, 6)).save(path), "for a photograph of 6x4"),
        "label of no class": (lambda path: Image.new("L", (6, 4), 3).save(path), "is that of no class"),
        "empty": (lambda path: path.write_bytes(b""), "no PNG"),
        "text": (lambda path: path.write_text("0 1 2"), "no PNG"),
    }


def narrow(bits: int) -> bytes:
    """A grey PNG of 6 x 4 with so many bits a pixel."""
    header = struct.pack(">IIBBBBB", 6, 4, bits, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress((b"\0" + b"\1" * -(-6 * bits // 8)) * 4)), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


# --------------------------------------------------------------------------------------------------------------- knobs


def added(line: str) -> Callable[[str], str]:
    """What adds a line to a text."""
    return lambda text: f"{text}\n{line}\n"


def replaced(old: str, new: str) -> Callable[[str], str]:
    """What replaces a line of a text."""
    return lambda text: text.replace(old, new, 1)


BOMB = "\n".join(["a: &a [x, x]", *(f"{b}: &{b} [*{a}, *{a}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True))])
PARAMS: dict[str, tuple[Any, str]] = {
    "rate of 6e-05, as DVC writes it": (replaced("    epochs: preset", "    epochs: preset\n    lr: 6e-05"), ""),
    "number with an exponent": (added("affinity:\n  optimisation:\n    lr: 1e-3"), ""),
    "classes named yes, no and 1": (replaced("  classes: all", "  classes: [yes, no, '1']"), ""),
    "key that stands twice": (added("seed: 1"), "the key 'seed' stands twice"),
    "aliases that grow": (added(BOMB), "aliases (*name) are not read"),
    "nested without end": (lambda text: "[" * 10_000, "nests too deeply"),
    "not UTF-8": (lambda text: text.encode() + b"# \xe9\n", "is not UTF-8"),
    "no YAML": (lambda text: "a: [", "is not readable YAML"),
    "text": (lambda text: "cam", "holds no knobs"),
    "unknown knob": (added("sead: 1"), "sead"),
    "number that is a word": (replaced("seed: 0", "seed: zero"), "seed = 'zero' (str)"),
    "truth value for a number": (replaced("seed: 0", "seed: true"), "seed = True (bool)"),
    "not a number": (replaced("bg_thresh: preset", "bg_thresh: .nan"), "bg_thresh"),
    "out of bounds": (replaced("bg_thresh: preset", "bg_thresh: 1.5"), "bg_thresh = 1.5"),
    "unknown method": (replaced("method: cam", "method: kam"), "method = 'kam'"),
    "batch of one for the segmentation network": (
        lambda text: "    epochs: preset\n    batch: 1".join(text.rsplit("    epochs: preset", 1)),
        "the batch normalisation of",
    ),
}

WEIGHT = torch.ones(2)
WEIGHTS: dict[str, tuple[Any, str]] = {
    "state dict": (lambda path: torch.save({"a.weight": WEIGHT, "a.steps": torch.ones(1).long()}, path), ""),
    "missing": (lambda path: None, "not found"),
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "pointer of Git LFS": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
    "web page": (lambda path: path.write_text("<!DOCTYPE html>"), "it is a web page"),
    "text": (lambda path: path.write_text("weights"), "no file of PyTorch"),
    "pickled namespace": (lambda path: torch.save(argparse.Namespace(lr=1), path), "it holds argparse.Namespace"),
    "NumPy number": (lambda path: torch.save({"a": WEIGHT, "best": np.float64(3)}, path), "it holds numpy"),
    "list": (lambda path: torch.save([WEIGHT], path), "hold no state dict"),
    **{
        f"{kind} weights": (
            lambda path, kind=kind: torch.save({"a.weight": torch.ones(2, dtype=kind), "b": WEIGHT}, path),
            f"a.weight is {str(kind).removeprefix('torch.')}",
        )
        for kind in (torch.int8, torch.bool, torch.complex64)
    },
    **{
        f"weights that hold {value}": (
            lambda path, value=value: torch.save({"a.weight": torch.tensor([1.0, value])}, path),
            "holds NaN or an infinity",
        )
        for value in (float("nan"), float("inf"))
    },
}
