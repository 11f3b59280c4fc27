"""The chart of masks against the background threshold, beside the curve of the maps that they are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.scoring import charts


def save_mask_curve(folder: Path, masks: Mapping[str, Any], thresholds: Sequence[float], maps: Sequence[float]) -> None:
    """Write `mask_curve.csv` and `.png`.

    Args:
        folder: where they go.
        masks: the curve of the masks, as `pipeline.scoring.mask_curve` gives it.
        thresholds: of the curve of the maps.
        maps: mIoU of the maps at each.
    """
    charts.save_table(folder / "mask_curve.csv", {"threshold": masks["thresholds"], "miou": masks["miou"]})
    figure = charts.new_figure()
    axes = figure.add_subplot()
    axes.plot(thresholds, maps, label="maps, all photographs")
    name = f"masks after the CRF, {masks['images']} photographs"
    axes.plot(masks["thresholds"], masks["miou"], marker="o", label=name)
    axes.set(xlabel="background threshold", ylabel="mIoU", xlim=(0, 1), ylim=(0, 1))
    axes.legend()
    charts.save_figure(folder / "mask_curve.png", figure)
