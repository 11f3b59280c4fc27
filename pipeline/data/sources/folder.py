"""A folder of photographs and their tags, in any layout of `pipeline.data.sources.tags`.

    image,labels,split
    farm/0001.jpg,cow|horse,train
    farm/0002.jpg,,val

An image with no label shows none of the classes; the column split may be left out. Where masks exist (for evaluation
alone), the mask of `farm/0001.jpg` is `<masks>/farm/0001.png`: label k is the k-th line of `<masks>/classes.txt`, or of
all tags in order where there is no such file, whatever `data.classes` chooses; 0 is background and 255 is ignored.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from pipeline.config.data import FolderData
from pipeline.data.class_lists import NUMBERING, numbered
from pipeline.data.manifest import Manifest, Record
from pipeline.data.sources.source import SPLITS, PrepareDataConfig, Source, data_root, label_map
from pipeline.data.sources.tags.names import Names, photographs_below
from pipeline.data.sources.tags.read import read_tags
from pipeline.data.sources.tags.rows import TagRow
from pipeline.data.warnings import class_counts
from pipeline.run.errors import UserError
from pipeline.run.files import expanded, inside

LONGEST_ID = 200  # bytes; masks are files named after the id, and file names end at 255


def read(config: PrepareDataConfig, workers: int) -> Source:
    """Read the tags and find their photographs; every problem is collected with its place.

    Raises:
        UserError: the folder or the tags cannot be read at all.
    """
    settings, root = FolderData.model_validate(config.source), data_root(config)
    if not root.is_dir():
        raise UserError(f"data.root = {root}: no such folder; give the folder that holds {settings.tags}")
    images = inside(root, settings.images)
    if not images.is_dir():
        raise UserError(f"data.folder.images: {images} is no folder; give one, or . for the root")
    table, files = inside(root, settings.tags), photographs_below(images, _other_folders(root, settings, config))
    tags = read_tags(table, images, files)
    notes, problems = list(tags.notes), list(tags.problems)
    _odd_labels(table, tags.rows, notes, problems)
    classes = _classes(table, config.classes, tags.rows, notes, problems)
    found = _found(root, settings, table, _named(table, images, tags.rows, files, notes, problems), problems)
    _say_left_out(table, files, found, notes)
    records = []
    for identity, row in found.items():
        split = row.split or _hashed_split(identity, settings.val_share)
        image = posixpath.normpath(posixpath.join(settings.images, row.image))
        records.append(Record(identity, split, image, 0, 0, tuple(name for name in classes if name in row.tags)))
    validates = config.validate_on == "val" and settings.val_share > 0  # else tune photographs do, or none
    needed = SPLITS if validates else SPLITS[:1]
    problems += _empty_splits(records, needed, settings.val_share) if not problems else []
    kept = [record for split in SPLITS for record in [r for r in records if r.split == split][: config.limit]]
    counts = class_counts(Manifest(tuple(kept), tuple(classes)))
    shown = ", ".join(f"{name} {train} + {val}" for name, (train, val) in counts.items())
    notes.append(f"photographs of each class (train + val), the rarest first: {shown}")
    masks = _masks(root, settings, kept, notes, problems)
    labels = label_map(_numbered(root, settings, classes, tags.rows, problems), classes) if masks else None
    return Source(kept, classes, masks, labels, [_without(root, note) for note in notes], problems, needs=needed)


def _without(root: Path, note: str) -> str:
    """A note that does not begin with the data root: notes stand in the report, which git keeps."""
    return note.removeprefix(f"{root}/").removeprefix(f"{root}: ")


def _other_folders(root: Path, settings: FolderData, config: PrepareDataConfig) -> list[Path]:
    """Folders of pictures that are no photographs."""
    masks = [root / settings.masks] if settings.masks is not None else []
    return masks + ([expanded(config.saliency.folder)] if config.saliency is not None else [])


def _named(
    table: Path, images: Path, rows: list[TagRow], files: list[str], notes: list[str], problems: list[str]
) -> list[TagRow]:
    """The rows with the names that their files have; those that nothing has a name like stay as they are."""
    names, matched, found = Names(files), [], []
    for row in rows:
        like = [] if _is_file(images, row.image) else names.like(row.image)
        if len(like) > 1:
            problems.append(f"{table}, {row.place}: {row.image!r} may be {' or '.join(like)}; write the name in full")
            continue
        matched += [f"{row.image!r} is {like[0]}"] if like else []
        found.append(replace(row, image=like[0]) if like else row)
    if matched:
        notes.append(
            f"{table}: {len(matched)} names differ from those of their files in extension, case or Unicode form, and "
            f"were matched: {', '.join(matched[:3])}"
        )
    return found


def _is_file(folder: Path, name: str) -> bool:
    try:
        return (folder / name).is_file()
    except (OSError, ValueError):  # too long, or a NUL byte: whoever opens it says so
        return True


def _say_left_out(table: Path, files: list[str], found: dict[str, TagRow], notes: list[str]) -> None:
    """Photographs that no row names take part in nothing."""
    used = {posixpath.normpath(row.image) for row in found.values()}
    if left := [file for file in files if file not in used]:
        notes.append(
            f"{table}: {len(left)} of {len(files)} photographs have no row and are left out, such as {left[0]}; add "
            "rows, with an empty label where one shows none of the classes"
        )


def _found(root: Path, settings: FolderData, table: Path, rows: list[TagRow], problems: list[str]) -> dict[str, TagRow]:
    """Rows whose file is there, by id, in the order of the table."""
    found: dict[str, TagRow] = {}
    for row in rows:
        try:
            identity = _identity(root, settings.images, row.image)
        except (UserError, OSError, RuntimeError) as error:  # the last for links in a circle
            problems.append(f"{table}, {row.place}: {error}")
            continue
        other = found.setdefault(identity, row)
        if other is not row:
            problems.append(
                f"{table}, {row.place}: {row.image!r} and {other.image!r} ({other.place}) "
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
    """Labels that look alike are hardly what was meant; those that nearly do may be."""
    known = sorted({tag for row in rows for tag in row.tags})
    alike, nearly = (
        _grouped(known, _look),
        _grouped(known, lambda tag: re.sub(r"[\W_]", "", _look(tag)).removesuffix("s")),
    )
    problems += [
        f"{table}: the labels {', '.join(map(ascii, tags))} look alike; write them in one way" for tags in alike
    ]
    notes += [
        f"{table}: are {' and '.join(map(repr, tags))} one class? If so, write them in one way"
        for tags in nearly
        if tags not in alike
    ]


def _grouped(tags: list[str], look: Callable[[str], str]) -> list[list[str]]:
    """Tags that have the same look, where several have."""
    groups: dict[str, list[str]] = {}
    for tag in tags:
        groups.setdefault(look(tag), []).append(tag)
    return [group for group in groups.values() if len(group) > 1]


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
