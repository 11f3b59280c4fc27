"""One picture of a finished run: training photographs with map and pseudo mask, held-out ones with their prediction.

`python -m tools.example_picture picture.png` reads what the run in the current folder has left, and chooses photographs
that show all classes. `--train` and `--val` name others by id.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.data.images import resize_image, resize_labels, scaled_size
from pipeline.data.manifest import Manifest, Record, load_manifest
from pipeline.data.masks import read_mask
from pipeline.data.photographs import Photographs
from pipeline.maps.store import fused_maps, read_entry, store_index
from pipeline.report.gallery import chosen
from pipeline.report.pictures import Picture, heat_overlay, label_overlay
from pipeline.run.errors import UserError
from pipeline.run.files import write_atomic
from pipeline.run.stage import run_light_stage
from pipeline.run.told import Runtime

SEEDS, MASKS, PREDICTIONS = Path("data/seeds"), Path("data/masks"), Path("data/predictions")
TITLES = ("photograph and tags", "map of one class", "pseudo mask", "not seen in training", "prediction")
GAP, BLOCK_GAP, TEXT, WHITE, INK = 6, 22, 20, (255, 255, 255), (59, 66, 82)
COLOURS = 96  # of the palette: half the size of the file, hardly seen

Tile = tuple[Picture, str]


def main(runtime: Runtime) -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, help="PNG to write")
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--side", type=int, default=192, help="longer side of a photograph, in pixels")
    parser.add_argument("--train", nargs="+", metavar="ID", help="training photographs")
    parser.add_argument("--val", nargs="+", metavar="ID", help="photographs of the validation split")
    arguments = parser.parse_args()
    manifest = load_manifest()
    train, val = (
        records_of(manifest.split(split), names, arguments.rows)
        for split, names in (("train", arguments.train), ("val", arguments.val))
    )
    photographs = Photographs(manifest, runtime.folder)
    rows = []
    for record, held_out in zip(train, val, strict=False):
        first, second = (small(photographs, one, arguments.side) for one in (record, held_out))
        rows.append([*learned(first, record, manifest), *predicted(second, held_out)])
    picture = sheet(rows, arguments.side).quantize(COLOURS, dither=Image.Dither.NONE)
    write_atomic(arguments.picture, lambda temporary: picture.save(temporary, "PNG", optimize=True))


def records_of(manifest: Manifest, names: Sequence[str] | None, count: int) -> list[Record]:
    """The photographs named, or such as show most classes.

    Raises:
        UserError: there is none of that name.
    """
    if names is None:
        return chosen(manifest, count)
    known = {record.id: record for record in manifest.records}
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"no such photograph in this split: {', '.join(unknown)}; see data/prepared/manifest.csv")
    return [known[name] for name in names]


def small(photographs: Photographs, record: Record, side: int) -> Picture:
    """A photograph (H, W, 3) with that longer side."""
    return resize_image(photographs.read(record), scaled_size(record.size, side))


def learned(photograph: Picture, record: Record, manifest: Manifest) -> list[Tile]:
    """A training photograph, its strongest map, its pseudo mask.

    Raises:
        UserError: it has no map.
    """
    entry = read_entry(store_index(SEEDS)[record.id], record.id)
    if not entry.class_ids:
        raise UserError(f"{record.id} has no tag, so no map; choose others with --train")
    peaks = np.mean([scale.amax(dim=(1, 2)).numpy() for scale in entry.maps], axis=0)
    strongest = int(peaks.argmax())
    maps, _ = fused_maps(entry, (photograph.shape[0], photograph.shape[1]))
    return [
        (photograph, ", ".join(record.tags)),
        (heat_overlay(photograph, maps[strongest]), manifest.classes[entry.class_ids[strongest] - 1]),
        (labelled(MASKS, record, photograph), ""),
    ]


def predicted(photograph: Picture, record: Record) -> list[Tile]:
    """A photograph of the validation split, and what the segmentation network says of it."""
    return [(photograph, ""), (labelled(PREDICTIONS, record, photograph), "")]


def labelled(folder: Path, record: Record, photograph: Picture) -> Picture:
    """A mask of the run over its photograph."""
    labels = read_mask(folder / f"{record.id}.png", record.size)
    return label_overlay(photograph, resize_labels(labels, (photograph.shape[0], photograph.shape[1])))


def sheet(rows: Sequence[Sequence[Tile]], side: int) -> Image.Image:
    """All tiles below their titles, each with its text below it; the held-out block stands apart."""
    heights = [max(picture.shape[0] for picture, _ in row) + TEXT for row in rows]
    lefts = [GAP + column * (side + GAP) + (BLOCK_GAP if column >= 3 else 0) for column in range(len(TITLES))]
    canvas = Image.new("RGB", (lefts[-1] + side + GAP, TEXT + sum(heights) + GAP), WHITE)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for left, title in zip(lefts, TITLES, strict=True):
        draw.text((left + side / 2, TEXT / 2), title, INK, font, anchor="mm")
    top = TEXT
    for row, height in zip(rows, heights, strict=True):
        for left, (picture, text) in zip(lefts, row, strict=True):
            canvas.paste(Image.fromarray(picture), (left + (side - picture.shape[1]) // 2, top))
            draw.text((left + side / 2, top + height - TEXT / 2), text, INK, font, anchor="mm")
        top += height
    return canvas


if __name__ == "__main__":
    run_light_stage(main)
