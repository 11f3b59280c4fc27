"""Masks of other programs in the place of pseudo masks: `<id>.png`, indexed or 8-bit grey, of the photograph's size.

Label 0 is background, 255 ignored, k the k-th class in `classes.txt` beside the masks or else of this run. Classes of
that list that this run leaves out become background. Masks are taken as they are: a class that no tag names stays.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from pipeline.config.masks import MaskRules
from pipeline.data.class_lists import numbered
from pipeline.data.manifest import Manifest, Record
from pipeline.data.masks import known_labels, read_mask, write_mask
from pipeline.data.outside import PNG, OutsideFiles, outside_file
from pipeline.data.sources.source import label_map
from pipeline.maps.background import Labels
from pipeline.maps.segments import voted
from pipeline.run.errors import UserError, listed
from pipeline.run.pool import in_processes

FOLDER = "masks.folder"
"""The knob that names the folder."""


def write_imported_masks(manifest: Manifest, files: OutsideFiles, rules: MaskRules, output: Path, workers: int) -> None:
    """Write the mask of every photograph in this run's labels, after the vote of segments where there are some.

    Raises:
        UserError: the files have changed, or masks are missing or cannot be used; all of these are named.
    """
    files.check_unchanged(FOLDER)
    rules.check_unchanged()
    labels = label_map(numbered(files.path, manifest.classes), manifest.classes)
    ours = None if labels is None else np.array(labels, dtype=np.uint8)
    job = partial(import_mask, folder=files.path, ours=ours, classes=len(manifest.classes), rules=rules, output=output)
    problems = in_processes(job, manifest.records, title="imported masks", workers=workers)
    if found := [problem for problem in problems if problem]:
        raise UserError(f"{FOLDER} = {files.folder}: masks cannot be used:\n{listed(found)}")


def import_mask(
    record: Record, folder: Path, ours: Labels | None, classes: int, rules: MaskRules, output: Path
) -> str | None:
    """Write the mask of one photograph; what is wrong with it, if anything.

    Args:
        record: of the photograph.
        folder: of the masks.
        ours: labels of this run by label of the file, see `pipeline.data.sources.source.label_map`.
        classes: how many there are, without background.
        rules: of the vote.
        output: the folder of the new mask.
    """
    try:
        path = outside_file(folder, record.id, PNG)
        if path is None:
            return f"{folder}: no {record.id}.png; every training photograph needs a mask"
        own = known_labels(path, read_mask(path, record.size), ours, classes)
        write_mask(output / f"{record.id}.png", voted(own, record, rules))
    except UserError as error:
        return str(error)
    return None
