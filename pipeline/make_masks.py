"""Stage make_masks: from maps to pseudo masks: background threshold, dense CRF, ignored region, palette PNG.

For full supervision (`masks.source = truth`) the ground-truth masks take their place, for `import` masks of another
program. Segments of a third tool may vote on all but true ones (`masks.segments`). A mask that is made is never made
again after a kill.
"""

from __future__ import annotations

import shutil
from functools import partial
from importlib import import_module
from pathlib import Path

from models.labels import IGNORE
from pipeline.config.masks import BackgroundThreshold, MaskRules
from pipeline.data.manifest import PREPARED, Manifest, Record, load_manifest
from pipeline.data.masks import read_mask, whole, write_mask
from pipeline.data.outside import OutsideFiles
from pipeline.maps.background import Threshold, confident_channels
from pipeline.maps.background_found import threshold_of
from pipeline.maps.imported_masks import write_imported_masks
from pipeline.maps.labellings import labels_at
from pipeline.maps.per_photograph import map_photographs
from pipeline.run.files import new_folder
from pipeline.run.stage import run_light_stage
from pipeline.run.told import Runtime, Told, told

INPUT, OUTPUT = Path("data/refined"), Path("data/masks")
TRUE_MASKS = "pipeline.maps.true_masks"  # reads ground truth, so it is loaded for full supervision alone


class MakeMasksConfig(MaskRules, Told):
    """What make_masks is told.

    Attributes:
        bg_thresh: the background threshold, or the rule that finds it.
        imported: the folder of masks of another program.
    """

    bg_thresh: BackgroundThreshold = None
    imported: OutsideFiles | None = None


def main(runtime: Runtime) -> None:
    """Make the mask of every training photograph."""
    config, manifest = told("make_masks", MakeMasksConfig), load_manifest().split("train")
    with new_folder(OUTPUT) as output:
        if config.source == "truth":
            import_module(TRUE_MASKS).write_true_masks(manifest, runtime.folder, output)
        elif config.source == "import":
            assert config.imported is not None, "configure tells where masks lie"
            write_imported_masks(manifest, config.imported, config, output, runtime.workers)
        else:
            write_pseudo_masks(manifest, config, runtime, output)


def write_pseudo_masks(manifest: Manifest, config: MakeMasksConfig, runtime: Runtime, output: Path) -> None:
    """Make the pseudo masks that are not there yet, in a pool of processes, then put all of them into place."""
    from pipeline.run.resume import resume_folder  # PyTorch is not needed for true masks

    config.check_unchanged()
    config = config.model_copy(update={"bg_thresh": threshold_of(config.bg_thresh, INPUT)})
    with resume_folder("make_masks", config, [INPUT, PREPARED / "manifest.csv", PREPARED / "classes.json"]) as folder:
        paths = {record.id: folder / "masks" / f"{record.id}.png" for record in manifest.records}
        missing = [record for record in manifest.records if not whole(paths[record.id])]
        job = partial(make_mask, config=config, root=runtime.folder, output=folder / "masks")
        map_photographs(job, INPUT, missing, "masks", runtime.workers)
        for path in paths.values():
            shutil.copyfile(path, output / path.name)
    if not any(shows_a_class(output / f"{record.id}.png", record) for record in manifest.records):
        knob = "masks.confidence_pair" if config.confidence_pair else "bg_thresh"
        print(f"WARNING: every mask is background only; lower {knob} ({config.confidence_pair or config.bg_thresh})")


def shows_a_class(path: Path, record: Record) -> bool:
    """Whether a mask has a pixel of a class."""
    labels = read_mask(path, record.size)
    return bool(((labels > 0) & (labels != IGNORE)).any())


def make_mask(shard: Path, record: Record, config: MakeMasksConfig, root: Path, output: Path) -> None:
    """Write the mask of one photograph.

    With a confidence pair (foreground, background threshold) a pixel is a class where the strict labelling says so,
    background where both do, and ignored elsewhere.

    Source: released code of IRN (`step/cam_to_ir_label.py`) for the pair; AMN and TransCAM alike.
    """
    thresholds: list[Threshold] = [*config.confidence_pair] if config.confidence_pair else [config.bg_thresh]
    found = labels_at(shard, record, thresholds, config, root)
    labels = found[0] if len(found) == 1 else confident_channels(*found)
    write_mask(output / f"{record.id}.png", labels)


if __name__ == "__main__":
    run_light_stage(main)
