"""Stage prepare_data: any data source becomes one manifest, checked image by image.

Nothing is written before everything is checked, and all problems are told at once. Masks are checked as
photographs are: only their hashes go on from here, so that changed masks are scored anew.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

from tqdm import tqdm

from pipeline.data.images import read_image
from pipeline.data.manifest import PREPARED, Manifest, Record, save_ground_truth, save_manifest
from pipeline.data.mask_checks import check_masks
from pipeline.data.packed_masks import pack_drawn
from pipeline.data.saliency import saliency_problems
from pipeline.data.sources.source import SPLITS, PrepareDataConfig, Source, data_root
from pipeline.data.tune import set_apart, validated_on_tune
from pipeline.data.warnings import class_table, data_warnings
from pipeline.run.errors import UserError, listed
from pipeline.run.files import inside, new_folder, sha256, write_json
from pipeline.run.stage import run_light_stage
from pipeline.run.told import Runtime, told

MASKS = "masks"
MOST_LINES = 40
MOST_CLASSES = 254  # masks are 8 bits: 0 is background, 255 is ignored


def main(runtime: Runtime) -> None:
    """Read the source, check every image, write manifest, classes, paths of masks, and notes.

    Raises:
        UserError: listing all that is wrong with the data.
    """
    config = told("prepare_data", PrepareDataConfig)
    source, root = _source(config, runtime.workers), data_root(config)
    records = [*split_records(source, config), *(record for record in source.records if record.split == "test")]
    checked, problems = check_images(root, records, config.max_megapixels, runtime.workers)
    hashes, wrong, doubts = check_masks(root, source, checked, runtime.workers)
    problems = [*source.problems, *problems, *wrong, *check_saliency(checked, config, runtime.workers)]
    problems = problems or _unusable(records, source, config)
    if problems:
        raise UserError(f"data.name = {config.name}: the data cannot be used as they are:\n{listed(problems)}")
    manifest = Manifest(tuple(record for record in checked if record.split in SPLITS), tuple(source.classes))
    test = tuple(record for record in checked if record.split == "test")
    notes, warnings = [*source.notes, *doubts, *_notes(manifest, config.background)], data_warnings(manifest)
    drawn, drawn_hashes = draw_masks(source, checked, runtime.workers)
    save_manifest(PREPARED, manifest, test)
    tune = set_apart(manifest.records, config.tune) if config.validate_on == "val" else []
    masks, reader = (drawn, "packed") if source.outlines else (source.masks, "png")
    save_ground_truth(PREPARED, masks, source.label_map, reader, tune, hashes | drawn_hashes, config.background)
    write_json(PREPARED / "notes.json", [*warnings, *notes])
    (PREPARED / "scenes").mkdir(exist_ok=True)  # an output of the stage, also where photographs lie elsewhere
    parts = {"train": manifest.split("train").records, config.validate_on: manifest.split("val").records}
    sizes = ", ".join(f"{len(part)} {name}" for name, part in (parts | ({"test": test} if test else {})).items())
    print(f"{sizes} images, {len(manifest.classes)} classes, {len(masks)} masks for evaluation")
    say(class_table(manifest), notes, warnings)


def say(table: list[str], notes: list[str], warnings: list[str]) -> None:
    """Print what is known of the data, the worst last."""
    print(*table[:MOST_LINES], sep="\n")
    if len(table) > MOST_LINES:
        print(f"... and {len(table) - MOST_LINES} classes with more")
    for kind, sentences in (("note", notes), ("WARNING", warnings)):
        for sentence in sentences:
            print(f"{kind}: {sentence}")


def split_records(source: Source, config: PrepareDataConfig) -> list[Record]:
    """The photographs of both splits, training first."""
    ordered = [record for split in SPLITS for record in source.records if record.split == split]
    return validated_on_tune(ordered, config.tune) if config.validate_on == "tune" else ordered


def _source(config: PrepareDataConfig, workers: int) -> Source:
    """What the module of the data set reads or draws."""
    source: Source = import_module(f"pipeline.data.sources.{config.name}").read(config, workers)
    return source


def check_images(
    root: Path, records: list[Record], max_megapixels: float, workers: int
) -> tuple[list[Record], list[str]]:
    """Decode every image once.

    Args:
        root: folder that the images' paths are relative to.
        records: photographs, in any order.
        max_megapixels: largest image accepted.
        workers: threads; decoding and hashing release Python's lock.

    Returns:
        The records with size and hash, in the same order, and one line for each image that cannot be used.
    """
    check = partial(_checked, root, max_megapixels=max_megapixels)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        bar = tqdm(pool.map(check, records), total=len(records), desc="images", unit="image", disable=None)
        results = list(bar)
    good = [result for result in results if isinstance(result, Record)]
    return good, [result for result in results if isinstance(result, str)]


def _checked(root: Path, record: Record, max_megapixels: float) -> Record | str:
    try:
        path = inside(root, record.image)
        height, width, _ = read_image(path, max_megapixels).shape
        if record.size not in ((0, 0), (height, width)):
            raise UserError(
                f"{path}: {width}x{height} pixels, but its annotations are of {record.width}x{record.height}; restore "
                "the photograph that they were made for"
            )
        return replace(record, width=width, height=height, sha256=sha256(path))
    except UserError as error:
        return str(error)


def check_saliency(records: list[Record], config: PrepareDataConfig, workers: int) -> list[str]:
    """Read the saliency map of every photograph that gets a mask once; one line for each that cannot be used."""
    if config.saliency is None:
        return []
    masked = [record for record in records if record.split in config.saliency_splits]
    return saliency_problems(config.saliency.path, masked, workers)


def draw_masks(source: Source, records: list[Record], workers: int) -> tuple[dict[str, str], dict[str, str]]:
    """Draw masks from outlines into `data/prepared/masks`; for data sets without outlines that folder is empty.

    Returns:
        The file of every photograph's mask, below `data/prepared`, by id, and SHA-256 of the files by path.
    """
    with new_folder(PREPARED / MASKS) as folder:
        shards = pack_drawn(folder, records, source.outlines, workers) if source.outlines else {}
    masks = {identity: f"{MASKS}/{shard}" for identity, shard in shards.items()}
    return masks, {file: sha256(PREPARED / file) for file in sorted(set(masks.values()))}


def _unusable(records: list[Record], source: Source, config: PrepareDataConfig) -> list[str]:
    """What makes a data set useless although each of its images is fine."""
    sizes, classes = Counter(record.split for record in records), source.classes
    needs = SPLITS if config.validate_on == "tune" else source.needs
    problems = [f"no image is in the split {split}" for split in needs if not sizes[split]]
    if problems and config.validate_on == "tune":
        problems.append(f"data.validate_on = tune with data.tune = {config.tune}: change the share")
    problems += [f"two images have the id {i!r}" for i, n in Counter(r.id for r in records).items() if n > 1]
    if not classes:
        problems.append("there are no classes: no image has a tag")
    elif not any(record.tags for record in records if record.split == "train"):
        problems.append("no train image has a tag of any class, so there is nothing to learn from")
    if len(classes) > MOST_CLASSES:
        problems.append(f"{len(classes)} classes, but masks hold {MOST_CLASSES}; choose some with data.classes")
    if any(name.casefold() == "background" for name in classes):
        problems.append("a class is named background, which is what pixels of no class are called; rename the tag")
    return problems


def _notes(manifest: Manifest, background: bool) -> list[str]:
    """What is allowed but worth knowing."""
    train = manifest.split("train")
    unseen = [name for name in manifest.classes if not any(name in record.tags for record in train.records)]
    notes = [f"no train image has these classes, so they cannot be learned: {', '.join(unseen)}"] if unseen else []
    if not manifest.split("val").records:
        notes.append("no photograph validates: tags and predictions are not scored")
    for split in SPLITS:
        records = manifest.split(split).records
        untagged = sum(not record.tags for record in records)
        if untagged:
            known = "" if background else ", though every pixel belongs to one: nothing is learned of them"
            notes.append(f"{untagged} of {len(records)} {split} images show none of the classes{known}")
    return notes + _copies(manifest)


def _copies(manifest: Manifest) -> list[str]:
    """Photographs that are there twice, byte for byte: in both splits, or with other tags."""
    same: dict[str, list[Record]] = {}
    for record in manifest.records:
        same.setdefault(record.sha256, []).append(record)
    groups = [records for records in same.values() if len(records) > 1]
    kinds = {
        "are in train and in val, so that val tells nothing of them": [
            group for group in groups if len({record.split for record in group}) > 1
        ],
        "have other tags elsewhere": [group for group in groups if len({record.tags for record in group}) > 1],
    }
    return [
        f"{len(found)} photographs {what}, under other names: {found[0][0].image} is {found[0][1].image}"
        for what, found in kinds.items()
        if found
    ]


if __name__ == "__main__":
    run_light_stage(main)
