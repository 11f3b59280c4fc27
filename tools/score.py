"""Scores of a folder of masks against ground truth: neither photographs nor a training are needed.

`python -m tools.score MASKS --truth TRUTH --classes voc2012` scores each `<id>.png` in MASKS against TRUTH/<id>.png, by
the code of the stage evaluate. `--classes` names voc2012 or a text file, a class a line, in the order of labels from 1.
`--ids` takes a list such as VOC's `train.txt`: each of its ids needs a mask. `--boundary` adds the boundary mIoU, which
takes longer than all else. `--json` writes all numbers to a file. 255 is void in the truth, and background in a mask.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, UnidentifiedImageError

from pipeline.data.class_lists import read_class_list
from pipeline.data.masks import known_labels, read_mask
from pipeline.data.sources.voc2012 import CLASSES
from pipeline.run.errors import UserError, listed
from pipeline.run.files import expanded, inside, write_json
from pipeline.run.pool import in_processes
from pipeline.run.stage import run_stage
from pipeline.scoring.boundary import BoundaryCounts
from pipeline.scoring.counts import Counts
from pipeline.scoring.scores import Confusion, confusion_matrix, summary
from pipeline.scoring.sizes import by_size

BY_NAME = {"voc2012": CLASSES}
NUMBERS = ("miou", "foreground_miou", "precision", "recall", "over_activation", "fpr", "fnr", "boundary_miou")


class Scored(NamedTuple):
    """What one mask gives.

    Attributes:
        problem: why it cannot be scored; None where it can.
        confusion: its pixels, rows true.
        boundary: its outlines, where they are asked for.
    """

    problem: str | None
    confusion: Confusion | None = None
    boundary: BoundaryCounts | None = None


def main() -> None:
    """Score the folder that the command line names; print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("masks", metavar="MASKS", help="folder of masks, <id>.png")
    parser.add_argument("--truth", required=True, help="folder of ground-truth masks, <id>.png")
    parser.add_argument("--classes", required=True, metavar="NAME|FILE", help="voc2012, or a file, a class a line")
    parser.add_argument("--ids", metavar="FILE", help="the ids to score, one a line; default: all masks")
    parser.add_argument("--boundary", action="store_true", help="also the boundary mIoU")
    parser.add_argument("--json", metavar="FILE", help="where all numbers go")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes; default: cores")
    given = parser.parse_args()
    classes = classes_of(given.classes)
    masks, truth = expanded(given.masks), expanded(given.truth)
    ids = chosen_ids(masks, truth, expanded(given.ids) if given.ids else None)
    scores = score(masks, truth, ids, classes, given.boundary, given.workers)
    print(table(scores))
    if given.json:
        write_json(expanded(given.json), scores)


def classes_of(name: str) -> list[str]:
    """The foreground classes that a name or a file gives; a first line `background` is left out.

    Raises:
        UserError: there is neither such a name nor such a file.
    """
    if name in BY_NAME:
        return list(BY_NAME[name])
    if not expanded(name).is_file():
        raise UserError(f"--classes {name}: neither {', '.join(BY_NAME)} nor a file; give a text file, a class a line")
    names = read_class_list(expanded(name))
    names = names[1:] if names[:1] == ["background"] else names
    if not 1 <= len(names) <= 254:
        raise UserError(f"--classes {name}: {len(names)} classes; masks have labels for 1 to 254")
    return names


def chosen_ids(masks: Path, truth: Path, listing: Path | None) -> list[str]:
    """The ids to score: those of a list, or of all masks.

    Raises:
        UserError: a folder or the list is missing, there is nothing to score, or masks or truth are missing.
    """
    for argument, folder in (("MASKS", masks), ("--truth", truth)):
        if not folder.is_dir():
            raise UserError(f"{argument} {folder}: no such folder")
    found, known = ({path.stem for path in folder.glob("*.png")} for folder in (masks, truth))
    if listing is not None:
        try:
            ids = list(dict.fromkeys(listing.read_text(encoding="utf-8").split()))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--ids {listing}: cannot be read ({error}); give a text file, an id a line") from error
    else:
        ids = sorted(found)
        if rest := len(known - found):
            print(f"{rest} masks of {truth} have none in {masks} and are not scored; --ids says which ones must")
    if not ids:
        raise UserError(f"{listing or masks}: nothing to score; masks are <id>.png")
    missing = [
        f"{folder / name}.png is missing"
        for folder, have in ((masks, found), (truth, known))
        for name in ids
        if name not in have
    ]
    if missing:
        raise UserError("masks cannot be scored:\n" + listed(missing))
    return ids


def score(
    masks: Path, truth: Path, ids: list[str], classes: list[str], boundary: bool = False, workers: int = 1
) -> dict[str, Any]:
    """All scores of some masks, as `metrics/masks.json` and its details have them.

    Args:
        masks: folder of the masks.
        truth: folder of the ground truth.
        ids: of the masks to score.
        classes: the foreground classes in label order.
        boundary: whether outlines are scored too.
        workers: processes.

    Raises:
        UserError: masks cannot be scored; all of these are named.
    """
    labels = len(classes) + 1
    job = partial(score_one, masks=masks, truth=truth, labels=labels, boundary=boundary)
    found = in_processes(job, ids, title="masks", workers=workers)
    if problems := [one.problem for one in found if one.problem]:
        raise UserError("masks cannot be scored:\n" + listed(problems))
    counts, outlines = Counts(), BoundaryCounts(labels)
    for name, one in zip(ids, found, strict=True):
        assert one.confusion is not None
        counts.add(name, one.confusion)
        if one.boundary is not None:
            outlines.intersection += one.boundary.intersection
            outlines.union += one.boundary.union
    scores = {"images": len(ids)} | summary(counts.total(labels), classes) | {"by_size": by_size(counts, labels)}
    return scores | ({"boundary_miou": outlines.miou()} if outlines.union.any() else {})


def score_one(name: str, masks: Path, truth: Path, labels: int, boundary: bool) -> Scored:
    """Count one mask against its truth."""
    try:
        path = inside(truth, f"{name}.png")
        known = known_labels(path, read_mask(path, size_of(path)), None, labels - 1)
        path = inside(masks, f"{name}.png")
        mask = known_labels(path, read_mask(path, known.shape), None, labels - 1)
    except UserError as error:
        return Scored(str(error))
    outlines = BoundaryCounts(labels) if boundary else None
    if outlines is not None:
        outlines.add(known, mask)
    return Scored(None, confusion_matrix(known, mask, labels), outlines)


def size_of(path: Path) -> tuple[int, int]:
    """Height and width of a PNG.

    Raises:
        UserError: it is none.
    """
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return picture.height, picture.width
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"{path}: no PNG ({error}); a mask is an indexed or 8-bit grey PNG") from error


def table(scores: dict[str, Any]) -> str:
    """The numbers, in percent, and the IoU of every class."""
    rows = [("masks", str(scores["images"])), ("labels that occur", str(scores["classes_scored"]))]
    rows += [(name.replace("_", " "), f"{100 * scores[name]:.2f}") for name in NUMBERS if name in scores]
    rows += [(f"IoU {name}", f"{100 * value:.2f}") for name, value in scores["per_class"].items()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value:>8}" for name, value in rows)


if __name__ == "__main__":
    run_stage(main)
