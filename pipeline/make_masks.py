"""Stage make_masks: from maps to pseudo masks: background threshold, dense CRF, ignored region, palette PNG.

For full supervision (`masks.source = truth`) the ground-truth masks take their place, for `import` masks of another
program. Segments of a third tool may vote on all but true ones (`masks.segments`). Where there are maps of validation
photographs (`cams.validation`), `data/validation/masks` gets masks of them, which no stage reads. A mask that is made
is never made again after a kill.
"""

from __future__ import annotations

import shutil
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np

from models.labels import IGNORE
from pipeline.config.masks import MaskRules, ToldThreshold
from pipeline.data.manifest import PREPARED, Manifest, Record, load_manifest
from pipeline.data.masks import read_mask, whole, write_mask
from pipeline.data.outside import OutsideFiles
from pipeline.maps.background import Threshold, confident_channels
from pipeline.maps.background_found import threshold_of
from pipeline.maps.background_rules import NOWHERE
from pipeline.maps.imported_masks import write_imported_masks
from pipeline.maps.labellings import labels_at
from pipeline.maps.per_photograph import map_photographs
from pipeline.run.files import new_folder
from pipeline.run.stage import run_light_stage
from pipeline.run.told import Runtime, Told, told
from pipeline.scoring.artefacts import VALIDATION
from pipeline.scoring.warnings import label_pixels, mask_warnings, said

INPUT = {"train": Path("data/refined"), "val": VALIDATION / "refined"}
OUTPUT = {"train": Path("data/masks"), "val": VALIDATION / "masks"}
TRUE_MASKS = "pipeline.maps.true_masks"  # reads ground truth, so it is loaded for full supervision alone


class MakeMasksConfig(MaskRules, Told):
    """What make_masks is told.

    Attributes:
        bg_thresh: the background threshold, the rule that finds it, or that there is no background.
        imported: the folder of masks of another program.
    """

    bg_thresh: ToldThreshold = None
    imported: OutsideFiles | None = None


def main(runtime: Runtime) -> None:
    """Make the mask of every training photograph, and of every validation photograph that has maps."""
    config, manifest = told("make_masks", MakeMasksConfig), load_manifest()
    if config.source == "maps":
        write_pseudo_masks(manifest, config, runtime)
        return
    with new_folder(OUTPUT["train"]) as output, new_folder(OUTPUT["val"]):
        if config.source == "truth":
            import_module(TRUE_MASKS).write_true_masks(manifest.split("train"), runtime.folder, output)
        else:
            assert config.imported is not None, "configure tells where masks lie"
            write_imported_masks(manifest.split("train"), config.imported, config, output, runtime.workers)


def write_pseudo_masks(manifest: Manifest, config: MakeMasksConfig, runtime: Runtime) -> None:
    """Make the pseudo masks that are not there yet, then put all of them into place."""
    from pipeline.run.resume import resume_folder  # PyTorch is not needed for true masks

    config.check_unchanged()
    config = config.model_copy(update={"bg_thresh": threshold_of(config.bg_thresh, INPUT["train"])})
    inputs = [*INPUT.values(), PREPARED / "manifest.csv", PREPARED / "classes.json"]
    with resume_folder("make_masks", config, inputs) as folder:
        made = {
            split: extend_masks(manifest.split(split), store, config, runtime, folder / split)
            for split, store in INPUT.items()
            if split == "train" or any(store.glob("*"))
        }
        for split, place in OUTPUT.items():
            with new_folder(place) as output:
                for path in made.get(split, []):
                    shutil.copyfile(path, output / path.name)
    records = manifest.split("train").records
    pixels = sum(label_pixels(read_mask(OUTPUT["train"] / f"{record.id}.png", record.size)) for record in records)
    tagged = int(manifest.split("train").tag_matrix().any(axis=0).sum())
    said(mask_warnings("masks", np.asarray(pixels), manifest.classes, tagged))


def extend_masks(
    manifest: Manifest, store: Path, config: MakeMasksConfig, runtime: Runtime, folder: Path
) -> list[Path]:
    """Make the masks of a split that are not there yet, in a pool of processes; gives the paths of all of them."""
    paths = {record.id: folder / f"{record.id}.png" for record in manifest.records}
    missing = [record for record in manifest.records if not whole(paths[record.id])]
    job = partial(make_mask, config=config, root=runtime.folder, output=folder)
    map_photographs(job, store, missing, "masks", runtime.workers)
    return [*paths.values()]


def make_mask(shard: Path, record: Record, config: MakeMasksConfig, root: Path, output: Path) -> None:
    """Write the mask of one photograph.

    With a confidence pair (foreground, background threshold) a pixel is a class where the strict labelling says so,
    background where both do and there is a background, and ignored elsewhere.

    Source: released code of IRN (`step/cam_to_ir_label.py`) for the pair; AMN and TransCAM alike.
    """
    thresholds: list[Threshold] = [*config.confidence_pair] if config.confidence_pair else [config.bg_thresh]
    found = labels_at(shard, record, thresholds, config, root)
    labels = found[0] if len(found) == 1 else confident_channels(*found)
    if config.bg_thresh == NOWHERE:
        labels = np.where(labels == 0, IGNORE, labels).astype(np.uint8)
    write_mask(output / f"{record.id}.png", labels)


if __name__ == "__main__":
    run_light_stage(main)
