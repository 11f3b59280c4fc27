"""A folder for each class, as torchvision's ImageFolder has them; a folder for each split may be around them.

    cat/0001.jpg              train/cat/0001.jpg
    dog/0001.jpg              val/dog/0001.jpg
    none/0001.jpg             val/none/0001.jpg

A folder `none` or `background` holds photographs that show none of the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pipeline.data.sources.tags.rows import EXAMPLE, SPLIT_WORDS, TagRow, TagTable, faults, sorted_tags

NOTHING = ("none", "background")
TEST = "test"


def are_class_folders(files: Sequence[str]) -> bool:
    """Whether photographs, by their paths, lie in folders alone."""
    return bool(files) and all("/" in file for file in files)


def read_class_folders(folder: Path, files: Sequence[str]) -> TagTable:
    """The rows of photographs that lie in folders named after their class.

    Args:
        folder: which holds the folders.
        files: paths of its photographs, relative to it.
    """
    parts = {file: PurePosixPath(file).parts for file in files}
    outer = {names[0].lower() for names in parts.values() if len(names) > 1}
    has_splits = "train" in outer and outer <= {*SPLIT_WORDS, TEST} and all(len(p) > 2 for p in parts.values())
    kept = [file for file in files if len(parts[file]) > 1 + has_splits]
    kept = [file for file in kept if not (has_splits and parts[file][0].lower() == TEST)]
    notes, problems, rows = [], [], []
    for file in kept:
        split = SPLIT_WORDS[parts[file][0].lower()] if has_splits else None
        name = parts[file][1 if has_splits else 0]
        tags = sorted_tags([] if name.lower() in NOTHING else [name])
        row = TagRow(f"folder {PurePosixPath(*parts[file][:-1])}", file, tags, split)
        wrong = faults(row)
        problems += [f"{folder}, {row.place}: {fault}" for fault in wrong]
        rows += [] if wrong else [row]
    if not rows and not problems:
        problems.append(f"{folder}: no photograph lies in a folder named after its class; {EXAMPLE}")
    if rows:
        names = ", ".join(sorted({tag for row in rows for tag in row.tags}))
        notes.append(f"{folder}: a folder for each class: {names}")
    if len(kept) < len(files):
        where = f"below {TEST} or in no class folder" if has_splits else "in no folder"
        notes.append(f"{folder}: {len(files) - len(kept)} photographs lie {where}, and are left out")
    return TagTable(rows, notes, problems)
