"""A folder of photographs and a CSV of tags; labels are separated by |, the column split may be left out.

    image,labels,split
    farm/0001.jpg,cow|horse,train
    farm/0002.jpg,,val

An image with no label shows none of the classes. Where masks exist (for evaluation alone), the mask of
`farm/0001.jpg` is `<masks>/farm/0001.png`: label k is the k-th line of `<masks>/classes.txt`, or of all tags of
the CSV in order where there is no such file, whatever `data.classes` chooses; 0 is background and 255 is ignored.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pipeline.config.data import FolderData
from pipeline.data.class_lists import NUMBERING, numbered
from pipeline.data.manifest import Record
from pipeline.data.sources.source import SPLITS, PrepareDataConfig, Source, data_root, label_map
from pipeline.data.sources.tags_csv import TagRow, read_tags
from pipeline.run.errors import UserError
from pipeline.run.files import inside

LONGEST_ID = 200  # bytes; masks are files named after the id, and file names end at 255


def read(config: PrepareDataConfig, workers: int) -> Source:
    """Read the CSV and find its photographs; every problem is collected with its line.

    Raises:
        UserError: the folder or the CSV cannot be read at all.
    """
    settings, root = FolderData.model_validate(config.source), data_root(config)
    if not root.is_dir():
        raise UserError(f"data.root = {root}: no such folder; give the folder that holds {settings.tags}")
    if not inside(root, settings.images).is_dir():
        raise UserError(f"data.folder.images: {root / settings.images} is no folder; give one, or . for the root")
    table = inside(root, settings.tags)
    tags = read_tags(table)
    notes, problems = list(tags.notes), list(tags.problems)
    _odd_labels(table, tags.rows, notes, problems)
    classes = _classes(table, config.classes, tags.rows, notes, problems)
    found = _found(root, settings, table, tags.rows, problems)
    records = []
    for identity, row in found.items():
        split = row.split or _hashed_split(identity, settings.val_share)
        image = posixpath.normpath(posixpath.join(settings.images, row.image))
        records.append(Record(identity, split, image, 0, 0, tuple(name for name in classes if name in row.tags)))
    needed = SPLITS if config.validate_on == "val" else SPLITS[:1]  # or tune photographs validate
    problems += _empty_splits(records, needed, settings.val_share) if not problems else []
    kept = [record for split in SPLITS for record in [r for r in records if r.split == split][: config.limit]]
    masks = _masks(root, settings, kept, notes, problems)
    labels = label_map(_numbered(root, settings, classes, tags.rows, problems), classes) if masks else None
    return Source(kept, classes, masks, labels, notes, problems)


def _found(root: Path, settings: FolderData, table: Path, rows: list[TagRow], problems: list[str]) -> dict[str, TagRow]:
    """Rows whose file is there, by id, in the order of the table."""
    found: dict[str, TagRow] = {}
    for row in rows:
        try:
            identity = _identity(root, settings.images, row.image)
        except (UserError, OSError, RuntimeError) as error:  # the last for links in a circle
            problems.append(f"{table}, line {row.line}: {error}")
            continue
        other = found.setdefault(identity, row)
        if other is not row:
            problems.append(
                f"{table}, line {row.line}: {row.image!r} and {other.image!r} (line {other.line}) "
                f"have the same id {identity!r} (the path without extension, / as __); rename one file"
            )
    return found


def _identity(root: Path, images: str, image: str) -> str:
    """The id of an image that exists below the root: its path without extension, `/` as `__`."""
    path = inside(root, posixpath.join(images, image))
    if ".." in PurePosixPath(image).parts:
        raise UserError(f"{image!r} holds '..'; write the path without it")
    if not path.is_file():
        hint = "; folders are separated by /" if "\\" in image else "; correct the name or remove the line"
        raise UserError(f"image {path} not found{hint}")
    identity = PurePosixPath(image).with_suffix("").as_posix().replace("/", "__")
    if len(identity.encode()) > LONGEST_ID:
        raise UserError(f"{image!r} is longer than {LONGEST_ID} bytes; masks are named after it, so shorten the name")
    return identity


def _classes(
    table: Path, wanted: str | list[str], rows: list[TagRow], notes: list[str], problems: list[str]
) -> list[str]:
    """Foreground classes in label order; other tags are noted, classes that no image has are problems."""
    images = Counter(tag for row in rows for tag in row.tags)
    if isinstance(wanted, str):
        return sorted(images)
    classes = [unicodedata.normalize("NFC", name) for name in wanted]
    known = ", ".join(sorted(images)) or "none"
    problems += [
        f"data.classes: no image in {table} has the label {name!r} (labels there: {known}); correct it"
        for name in classes
        if name not in images
    ]
    others = [f"{name} ({count})" for name, count in sorted(images.items()) if name not in classes]
    if others:
        notes.append(f"labels that are not in data.classes count as background (images): {', '.join(others)}")
    return classes


def _odd_labels(table: Path, rows: list[TagRow], notes: list[str], problems: list[str]) -> None:
    """Labels that look alike, or seem to be several, are hardly what was meant."""
    known = sorted({tag for row in rows for tag in row.tags})
    alike: dict[str, list[str]] = {}
    for tag in known:
        alike.setdefault(_look(tag), []).append(tag)
    problems += [
        f"{table}: the labels {', '.join(map(ascii, tags))} look alike; write them in one way"
        for tags in alike.values()
        if len(tags) > 1
    ]
    for tag in known:
        parts = {part.strip() for part in re.split("[,;]", tag)}
        if len(parts) > 1:
            meant = problems if parts & {*known} else notes
            meant.append(f"{table}: the label {tag!r} holds a comma or a semicolon; labels are separated by |")


def _look(tag: str) -> str:
    """What a reader sees of a label: neither case nor forms of letters nor invisible signs."""
    visible = (sign for sign in unicodedata.normalize("NFKC", tag) if unicodedata.category(sign) != "Cf")
    return " ".join("".join(visible).casefold().split())


def _numbered(
    root: Path, settings: FolderData, classes: list[str], rows: list[TagRow], problems: list[str]
) -> list[str]:
    """The classes as the masks number them, from 1: of a file beside the masks, or all labels in order."""
    folder = root / str(settings.masks)
    if not (folder / NUMBERING).is_file():
        return sorted({tag for row in rows for tag in row.tags})
    try:
        return numbered(folder, classes)
    except UserError as error:
        problems.append(str(error))
        return classes


def _hashed_split(identity: str, val_share: float) -> str:
    """The split that an id falls into; rows added, removed or moved never change that of another image."""
    digest = hashlib.sha256(identity.encode()).digest()
    return "val" if int.from_bytes(digest[:8], "big") < val_share * 2**64 else "train"


def _empty_splits(records: list[Record], needed: Sequence[str], val_share: float) -> list[str]:
    sizes = Counter(record.split for record in records)
    return [
        f"none of the {len(records)} images is in the split {split}; give the CSV a column split "
        f"(train or val), or change data.folder.val_share = {val_share:g}"
        for split in needed
        if not sizes[split]
    ]


def _masks(
    root: Path, settings: FolderData, records: list[Record], notes: list[str], problems: list[str]
) -> dict[str, str]:
    """Paths of the masks that exist, by id; they are not opened."""
    if settings.masks is None:
        return {}
    if not inside(root, settings.masks).is_dir():
        problems.append(f"data.folder.masks: {root / settings.masks} is no folder; correct it or set it to none")
        return {}
    images = posixpath.normpath(settings.images)
    masks = {}
    for record in records:
        name = PurePosixPath(record.image).relative_to(images).with_suffix(".png")
        path = posixpath.normpath(posixpath.join(settings.masks, name))
        if (root / path).is_file():
            masks[record.id] = path
    missing = len(records) - len(masks)
    if records and not masks:
        problems.append(f"data.folder.masks: {path} and all other masks are missing; correct it or set none")
    elif missing:
        notes.append(f"{missing} of {len(records)} images have no mask in {settings.masks}: not scored")
    return masks
