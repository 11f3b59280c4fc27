"""Masks or predictions for labelling tools and trainers.

Run as `python -m tools.export {masks,predictions} --format FORMAT [--out DIR]`, after `make_masks` or `predict`. The
folder must be a new one, so that no work done in an earlier export is lost. Its `export.json` says what was written and
what became of pixels that are ignored (255).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pipeline.run.errors import UserError
from pipeline.run.files import expanded, new_folder, write_json
from pipeline.run.stage import run_stage
from tools.export.coco import write_coco
from tools.export.cvat import write_cvat
from tools.export.index_masks import write_png, write_voc
from tools.export.labelled import IGNORED, SOURCES, Labelled, labelled
from tools.export.labelstudio import write_labelstudio
from tools.export.polygons import write_labelme, write_yolo


class Format(NamedTuple):
    """A format.

    Attributes:
        write: into an empty folder.
        ignored: what becomes of label 255.
    """

    write: Callable[[Labelled, Path], None]
    ignored: str


FORMATS = {
    "png": Format(write_png, "stays 255"),
    "coco": Format(write_coco, f"iscrowd annotations of a category {IGNORED}, number 255, where there are any"),
    "cvat": Format(write_cvat, f"masks of a label {IGNORED}"),
    "labelstudio": Format(write_labelstudio, f"a brush region of a label {IGNORED}"),
    "voc": Format(write_voc, "stays 255"),
    "yolo": Format(write_yolo, "left out, which YOLO takes for background"),
    "labelme": Format(write_labelme, f"polygons of {IGNORED}, LabelMe's own word"),
}


def main() -> None:
    """Write the export that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", choices=SOURCES, help="what is exported")
    parser.add_argument("--format", choices=FORMATS, required=True, help="of which tool")
    parser.add_argument("--out", metavar="DIR", help="a new folder (exports/<source>-<format>)")
    arguments = parser.parse_args()
    source, name = arguments.source, arguments.format
    out = expanded(arguments.out or f"exports/{source}-{name}")
    for line in export(source, name, out):
        print(line)


def export(source: str, name: str, out: Path) -> list[str]:
    """Write an export into a new folder; returns what the user should know.

    Args:
        source: a key of `SOURCES`.
        name: a key of `FORMATS`.
        out: the folder.

    Raises:
        UserError: the folder exists, an optional library or a mask is missing, or a mask is damaged.
    """
    if out.exists():
        raise UserError(f"{out} exists, and may hold work of yours; remove it, or name another folder with --out")
    exported, chosen = labelled(source), FORMATS[name]
    with new_folder(out) as folder:
        chosen.write(exported, folder)
        count = len(exported.manifest.records)
        content = {"source": source, "format": name, "ignored": chosen.ignored, "photographs": count}
        write_json(folder / "export.json", content)
    counted = ", ".join(f"{len(exported.manifest.split(split).records)} of {split}" for split in exported.splits())
    return [f"{out}: {source} of photographs, {counted}", f"ignored pixels (255): {chosen.ignored}"]


if __name__ == "__main__":
    run_stage(main)
