"""Masks of any photographs by a trained segmentation network.

`python -m pipeline.predict PHOTOGRAPHS... --out DIR` takes files, folders and patterns. It needs `data/predictor`
alone, which stage `predict` leaves. DIR gets `masks/` (indexed PNG in the size of the photograph), `overlays/` (JPEG to
look at) and `areas.csv` (pixels and share of each class, a row for each photograph and class). What lies in a folder
keeps its path below it.
"""

from __future__ import annotations

import argparse
import csv
import glob
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from models.kernels import KERNELS
from pipeline.data.images import SUFFIXES, read_image, resize_image, resize_labels, scaled_size
from pipeline.data.masks import write_mask
from pipeline.prediction.predictor import Labels, Predictor, of_other_code, read_about
from pipeline.report.pictures import label_overlay
from pipeline.run.errors import UserError, listed
from pipeline.run.files import write_atomic, write_text

OVERLAY_SIDE = 1024
OTHER_CODE = "WARNING: {folder} was written by other code than this; masks may differ from those of its data set"


def main() -> None:
    """Predict what the command line names.

    Raises:
        UserError: nothing is to predict, or some photographs could not be; the masks of the others are there.
    """
    arguments = parser().parse_args()
    photographs = found(arguments.photographs)
    predictor = Predictor(arguments.predictor, arguments.device, **knobs(arguments))
    if of_other_code(read_about(arguments.predictor)):
        print(OTHER_CODE.format(folder=arguments.predictor))
    rows, problems = list[tuple[str, str, int, float]](), list[str]()
    for name, path in tqdm(photographs.items(), desc="photographs", disable=None):
        try:
            image = read_image(path, arguments.max_megapixels)
            labels = predictor(image)
        except UserError as error:
            problems.append(str(error))
            continue
        write_mask(arguments.out / "masks" / f"{name}.png", labels)
        if arguments.overlays:
            write_overlay(arguments.out / "overlays" / f"{name}.jpg", image, labels)
        rows += areas(name, labels, predictor.classes)
    write_areas(arguments.out / "areas.csv", rows)
    print(f"{len(photographs) - len(problems)} of {len(photographs)} photographs have a mask in {arguments.out}/masks")
    if problems:
        raise UserError(f"some photographs could not be predicted:\n{listed(problems)}")


def parser() -> argparse.ArgumentParser:
    """What the command line may say; knobs that are not given are those of the data set's predictions."""
    made = argparse.ArgumentParser(
        "python -m pipeline.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("photographs", nargs="+", help="files, folders (with all below) and patterns such as 'in/*.jpg'")
    made.add_argument("--out", type=Path, required=True, help="folder of the results")
    made.add_argument("--predictor", type=Path, default=Path("data/predictor"), help="(%(default)s)")
    made.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    made.add_argument("--long-side", help="of the photograph at scale 1, in pixels; none: its own")
    made.add_argument("--scales", type=float, nargs="+", help="that are merged")
    made.add_argument("--flip", action=argparse.BooleanOptionalAction, help="join each scale by its mirror image")
    made.add_argument("--crf", choices=("none", *KERNELS), help="kernels of the CRF")
    made.add_argument("--overlays", action=argparse.BooleanOptionalAction, default=True)
    made.add_argument("--max-megapixels", type=float, default=200.0, help="larger files are refused (%(default)s)")
    return made


def knobs(arguments: argparse.Namespace) -> dict[str, object]:
    """The knobs of predictions that the command line changes."""
    given = {name: getattr(arguments, name) for name in ("scales", "flip", "crf")}
    if arguments.long_side is not None:
        side: str = arguments.long_side
        given["long_side"] = int(side) if side.isdigit() else side
    return {name: value for name, value in given.items() if value is not None}


# ---------------------------------------------------------------------------------------------------------- photographs


def found(words: Sequence[str]) -> dict[str, Path]:
    """Photographs by the name of their results, in order.

    Args:
        words: files, folders and patterns.

    Raises:
        UserError: one names nothing, or two photographs would have the same results.
    """
    photographs: dict[str, Path] = {}
    problems = []
    for word in words:
        matches = [Path(word)] if Path(word).exists() else sorted(map(Path, glob.glob(word, recursive=True)))  # noqa: PTH207
        named = [pair for match in matches for pair in below(match).items()]
        if not named:
            problems.append(f"{word}: no such photograph, and no folder or pattern with some")
        for name, path in named:
            if photographs.setdefault(name, path).absolute() != path.absolute():
                problems.append(f"{path} and {photographs[name]}: both would be {name}; predict them into two folders")
    if problems:
        raise UserError("these photographs cannot be predicted:\n" + listed(problems))
    return photographs


def below(path: Path) -> dict[str, Path]:
    """The photographs that a path names, by the name of their results."""
    if path.is_file():
        return {path.stem: path}
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES) if path.is_dir() else []
    return {str(file.relative_to(path).with_suffix("")): file for file in files}


# -------------------------------------------------------------------------------------------------------------- results


def write_overlay(path: Path, image: Labels, labels: Labels) -> None:
    """Write a photograph with its mask on top, at a size to look at."""
    size = scaled_size((image.shape[0], image.shape[1]), min(OVERLAY_SIDE, max(image.shape[:2])))
    picture = Image.fromarray(label_overlay(resize_image(image, size), resize_labels(labels, size)))
    write_atomic(path, lambda temporary: picture.save(temporary, "JPEG", quality=90))


def areas(name: str, labels: Labels, classes: Sequence[str]) -> list[tuple[str, str, int, float]]:
    """For each label of a mask: photograph, class, pixels, share of the photograph."""
    counts = np.bincount(labels.ravel(), minlength=len(classes) + 1)
    names = ("background", *classes)
    return [
        (name, names[label], int(count), count / labels.size) for label, count in enumerate(counts.tolist()) if count
    ]


def write_areas(path: Path, rows: Sequence[tuple[str, str, int, float]]) -> None:
    """Write the table of areas."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["photograph", "class", "pixels", "share"])
    writer.writerows((name, label, pixels, f"{share:.6f}") for name, label, pixels, share in rows)
    write_text(path, text.getvalue())
