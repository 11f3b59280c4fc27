"""PASCAL VOC 2012, with or without the images that SBD adds, or a folder of that layout with a `labels.csv`.

    ImageSets/Segmentation/{train,val}.txt   ids of the splits; test.txt too where it is asked for
    JPEGImages/<id>.jpg
    Annotations/<id>.xml                     tags: every object, also difficult ones; or instead:
    labels.csv                               header image,labels; image is the id, labels are separated by |
    SegmentationClass/<id>.png               masks, for evaluation alone

`train_aug` is train and SBD together, without val: 10,582 images. The devkit holds the images that SBD adds,
and their annotations, so SBD itself is needed for its two lists only; its masks are not read.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

from tqdm import tqdm

from pipeline.config.data import VocData
from pipeline.data.manifest import Record
from pipeline.data.sources.source import SPLITS, PrepareDataConfig, Source, data_root, label_map
from pipeline.data.sources.tags.table import read_table
from pipeline.run.errors import UserError
from pipeline.run.files import expanded

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person"),
    *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
COUNTS = {"train": 1464, "val": 1449, "train_aug": 10582, "test": 1456}
LISTS = Path("ImageSets/Segmentation")
AUG_LISTS = ("trainaug.txt", "train_aug.txt")
VOC_PAGE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
TEST_PAGE = "http://host.robots.ox.ac.uk:8080/"
SBD_PAGE = "http://home.bharathh.info/pubs/codes/SBD/download.html"
SBD_PARTS = ("cls", "img", "inst", "train.txt", "val.txt")
UNPACKING = ".unpacking"


def read(config: PrepareDataConfig, workers: int) -> Source:
    """Read lists and tags; every problem is collected.

    Raises:
        UserError: the devkit or one of its lists is not there.
    """
    settings, root = VocData.model_validate(config.source), data_root(config)
    home = _devkit(root, settings.download)
    notes: list[str] = []
    problems: list[str] = []
    splits = _splits(root, home, settings, problems)
    if not (home / "labels.csv").is_file():
        problems += _wrong_counts(home, settings.train_split, splits)
    splits = {split: ids[: config.limit] for split, ids in splits.items()}
    tagged = [identity for split in SPLITS for identity in splits[split]]
    tags = _tags(home, tagged, problems) | dict.fromkeys(splits.get("test", []), ())
    classes = list(CLASSES) if isinstance(config.classes, str) else config.classes
    problems += [f"data.classes: {c!r} is no VOC class ({', '.join(CLASSES)})" for c in classes if c not in CLASSES]
    records = [
        Record(identity, split, image, 0, 0, tuple(name for name in classes if name in tags[identity]))
        for split, ids in splits.items()
        for identity in ids
        if identity in tags
        for image in [(home / "JPEGImages" / f"{identity}.jpg").relative_to(root).as_posix()]
    ]
    masks = _masks(root, home, [record for record in records if record.split in SPLITS], notes)
    return Source(records, classes, masks, label_map(CLASSES, classes), notes, problems)


# ---------------------------------------------------------------------------------------------------- lists


def _devkit(root: Path, download: bool) -> Path:
    """The folder that holds ImageSets: the root, or VOC2012 or VOCdevkit/VOC2012 below it."""
    places = [root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"]
    homes = [place for place in places if (place / LISTS).is_dir()]
    if len(homes) > 1:
        raise UserError(f"data.root = {root}: VOC 2012 lies in {homes[0]} and in {homes[1]}; give one of them")
    above = root.parent.parent if root.parts[-2:] == ("VOCdevkit", "VOC2012") else root
    if homes and not (above / UNPACKING).exists():
        return homes[0]
    if homes and not download:
        raise UserError(
            f"data.root = {root}: unpacking VOC 2012 did not end ({above / UNPACKING} is there); set "
            "data.voc2012.download to true, which takes it up again, or delete that mark once all is there"
        )
    if not download:
        raise UserError(
            f"data.root = {root}: no {LISTS} there, nor in VOC2012 or VOCdevkit/VOC2012 below; "
            f"set data.voc2012.download to true, or unpack VOCtrainval_11-May-2012.tar from {VOC_PAGE} there"
        )
    from torchvision.datasets import VOCSegmentation

    try:
        with unpacking(above, "VOCdevkit"):
            VOCSegmentation(str(above), year="2012", image_set="train", download=True)
    except (OSError, RuntimeError) as error:
        raise UserError(f"VOC 2012 could not be downloaded into {above} ({error}); fetch it from {VOC_PAGE}") from error
    return above / "VOCdevkit" / "VOC2012"


@contextmanager
def unpacking(folder: Path, makes: str) -> Iterator[None]:
    """A mark in a folder while an archive is fetched and unpacked there; one that did not end leaves it.

    Args:
        folder: where the archive is unpacked.
        makes: the folder in the archive; while it is not there nothing has been unpacked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / UNPACKING
    mark.touch()
    try:
        yield
        mark.unlink()
    finally:
        if not (folder / makes).exists():
            mark.unlink(missing_ok=True)


def _splits(root: Path, home: Path, settings: VocData, problems: list[str]) -> dict[str, list[str]]:
    """Ids of train, val and perhaps test; train_aug comes sorted, whichever lists it was put together from."""
    train, val = (_ids(home / LISTS / f"{split}.txt", problems) for split in SPLITS)
    if settings.train_split == "train_aug":
        added = [identity for path in _added_lists(root, home, settings) for identity in _ids(path, problems)]
        train = sorted({*train, *added} - {*val})
    both = sorted({*train} & {*val})
    if both:
        problems.append(f"{home / LISTS}: {len(both)} images are in train.txt and in val.txt, such as {both[0]}")
    return {"train": train, "val": val} | ({"test": _test_ids(home, problems)} if settings.test else {})


def _test_ids(home: Path, problems: list[str]) -> list[str]:
    """Ids of the test split, which comes in an archive of its own."""
    path = home / LISTS / "test.txt"
    if not path.is_file():
        raise UserError(
            f"{path} not found, but data.voc2012.test = true; unpack VOC2012test.tar over {home}, from {TEST_PAGE}, or "
            "set it to false"
        )
    return _ids(path, problems)


def _ids(path: Path, problems: list[str]) -> list[str]:
    """First word of each line, as an id; `/JPEGImages/<id>.jpg /SegmentationClassAug/<id>.png` is one too."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: list cannot be read ({error}); restore it from the devkit, {VOC_PAGE}") from error
    ids: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            identity = line.split()[0].rpartition("/")[2].removesuffix(".jpg")
            if re.fullmatch(r"\w[\w.-]*", identity):
                ids[identity] = None
            else:
                problems.append(f"{path}, line {number}: {identity!r} is no image id; correct or remove the line")
    return list(ids)


def _added_lists(root: Path, home: Path, settings: VocData) -> list[Path]:
    """Lists that train_aug adds to train: of SBD, or one that lies beside train.txt."""
    beside = [home / LISTS / name for name in AUG_LISTS if (home / LISTS / name).is_file()]
    if beside and settings.sbd_root is None:
        return beside[:1]
    sbd = expanded(settings.sbd_root) if settings.sbd_root else root / "sbd"
    if settings.download and (_sbd_lists(sbd) is None or (sbd / UNPACKING).exists()):
        from torchvision.datasets import SBDataset

        try:
            with unpacking(sbd, "benchmark_RELEASE"):
                _clear(sbd)
                SBDataset(str(sbd), image_set="train", mode="segmentation", download=True)
        except (OSError, RuntimeError) as error:
            raise UserError(f"SBD could not be downloaded into {sbd} ({error}); fetch it from {SBD_PAGE}") from error
    lists = _sbd_lists(sbd)
    if lists is None:
        raise UserError(
            f"train_aug needs SBD, but {sbd} holds no train.txt and val.txt; set data.voc2012.sbd_root to "
            f"the unpacked benchmark.tgz from {SBD_PAGE}, or data.voc2012.download to true, or put "
            f"{AUG_LISTS[0]} into {home / LISTS}"
        )
    return lists


def _clear(sbd: Path) -> None:
    """Remove what an unpacking that did not end has moved into place: torchvision moves nothing over it."""
    for name in SBD_PARTS:
        if (sbd / name).is_dir():
            shutil.rmtree(sbd / name)
        else:
            (sbd / name).unlink(missing_ok=True)


def _sbd_lists(sbd: Path) -> list[Path] | None:
    for folder in (sbd, sbd / "dataset", sbd / "benchmark_RELEASE" / "dataset"):
        lists = [folder / "train.txt", folder / "val.txt"]
        if all(path.is_file() for path in lists):
            return lists
    return None


def _wrong_counts(home: Path, train_split: str, splits: dict[str, list[str]]) -> list[str]:
    """VOC 2012 has known numbers of images; other numbers mean other results than the published ones."""
    names = {split: train_split if split == "train" else split for split in splits}
    return [
        f"{home}: {names[split]} has {len(ids):,} images, VOC 2012 has {COUNTS[names[split]]:,}; restore the "
        "lists, or give a labels.csv instead of Annotations if this is another data set"
        for split, ids in splits.items()
        if len(ids) != COUNTS[names[split]]
    ]


# ------------------------------------------------------------------------------------------- tags and masks


def _tags(home: Path, ids: list[str], problems: list[str]) -> dict[str, tuple[str, ...]]:
    """Tags by id, from labels.csv where there is one, else from the annotations; ids without are problems."""
    table, annotations = home / "labels.csv", home / "Annotations"
    if table.is_file():
        return _csv_tags(table, ids, problems)
    if not annotations.is_dir():
        raise UserError(f"{home}: neither Annotations nor labels.csv gives tags; restore one, see {VOC_PAGE}")
    tags = {}
    for identity in tqdm(ids, desc="annotations", unit="image", disable=None):
        try:
            tags[identity] = annotation_tags(annotations / f"{identity}.xml")
        except UserError as error:
            problems.append(str(error))
    return tags


def _csv_tags(table: Path, ids: list[str], problems: list[str]) -> dict[str, tuple[str, ...]]:
    labels = read_table(table)
    problems += labels.problems
    for row in labels.rows:
        problems += [f"{table}, {row.place}: {tag!r} is no VOC class" for tag in row.tags if tag not in CLASSES]
    tags = {row.image: row.tags for row in labels.rows}
    missing = [identity for identity in ids if identity not in tags]
    if missing and not labels.problems:
        problems.append(f"{table}: {len(missing)} images of the lists have no row, such as {', '.join(missing[:5])}")
    return tags


def annotation_tags(path: Path) -> tuple[str, ...]:
    """Classes of all objects in a VOC annotation, difficult ones included, parts of objects not; sorted.

    Raises:
        UserError: the file is missing, damaged, defines entities, or names a class that VOC does not have.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        # Entities can expand without bound. Text is parsed, not bytes, so that no other encoding hides them.
        if re.search("<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
            raise UserError(f"{path}: defines a document type or entities, which no VOC annotation does; restore it")
        names = {str(name.text).strip() for name in ElementTree.fromstring(text).findall("object/name")}
    except (OSError, UnicodeDecodeError, ElementTree.ParseError) as error:
        raise UserError(f"{path}: annotation cannot be read ({error}); restore it from the devkit") from error
    unknown = sorted(names - set(CLASSES))
    if unknown:
        raise UserError(f"{path}: {unknown[0]!r} is no VOC class; restore the file from the devkit")
    return tuple(sorted(names))


def _masks(root: Path, home: Path, records: list[Record], notes: list[str]) -> dict[str, str]:
    """Paths of the masks that exist, by id; they are not opened."""
    paths = {record.id: home / "SegmentationClass" / f"{record.id}.png" for record in records}
    masks = {identity: path.relative_to(root).as_posix() for identity, path in paths.items() if path.is_file()}
    if len(masks) < len(records):
        missing = len(records) - len(masks)
        notes.append(f"{missing} of {len(records)} images have no mask in SegmentationClass (as SBD's): not scored")
    return masks
