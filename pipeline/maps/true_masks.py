"""Ground-truth masks in the place of pseudo masks: full supervision, the ceiling of every method.

`make_masks` loads this module where the knob `masks.source` is `truth`, and nowhere else.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.labels import IGNORE
from pipeline.data.ground_truth import GroundTruth
from pipeline.data.manifest import Manifest
from pipeline.data.masks import write_mask
from pipeline.run.errors import UserError


def write_true_masks(manifest: Manifest, root: Path, output: Path) -> None:
    """Write the mask of every photograph; one without a mask is ignored whole (255).

    Raises:
        UserError: none of them has a mask.
    """
    truth = GroundTruth(manifest, root)
    known = {record.id for record in truth.known(manifest)}
    if not known:
        raise UserError(
            f"masks.source = truth learns from ground-truth masks, but none of the {len(manifest.records)} training "
            "photographs has one; add masks, or choose another method"
        )
    for record in manifest.records:
        labels = truth.read(record) if record.id in known else np.full(record.size, IGNORE, dtype=np.uint8)
        write_mask(output / f"{record.id}.png", labels)
