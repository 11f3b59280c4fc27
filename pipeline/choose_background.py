"""Stage choose_background: the background threshold of every store of maps, where a rule finds one for a data set.

A number, `none` and rules that look at one photograph at a time need no search and are handed on. No rule reads a mask.
The merit of every threshold goes to `metrics/plots/background`, as a table and as a chart.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.config.masks import ToldThreshold
from pipeline.data.manifest import load_manifest
from pipeline.maps.background_found import DATA, FOLDER, MAPS, save_thresholds, stores_below
from pipeline.maps.background_rules import SET_RULES, THRESHOLDS, Numbers, highest
from pipeline.run.files import new_folder
from pipeline.run.stage import run_light_stage
from pipeline.run.told import Runtime, Told, told
from pipeline.scoring.charts import save_merits

PLOTS = Path("metrics/plots/background")


class ChooseBackgroundConfig(Told):
    """What choose_background is told."""

    bg_thresh: ToldThreshold


def main(runtime: Runtime) -> None:
    """Find the threshold of every store there is."""
    rule = told("choose_background", ChooseBackgroundConfig).bg_thresh
    stores = {maps: stores_below(DATA / maps) for maps in MAPS}
    curves: dict[Path, Numbers] = {}
    if rule in SET_RULES:
        from pipeline.maps.background_search import merits  # PyTorch is not needed where nothing is searched

        every = [store for found in stores.values() for store in found]
        curves = merits(SET_RULES[str(rule)], every, list(load_manifest().split("train").records), runtime.folder)
    thresholds = {store: highest(curve) for store, curve in curves.items()}
    with new_folder(FOLDER) as output:
        for maps, found in stores.items():
            save_thresholds(output, maps, rule, {store: thresholds.get(store, rule) for store in found})
    with new_folder(PLOTS) as plots:
        named = {str(store.relative_to(DATA)): curve.tolist() for store, curve in curves.items()}
        save_merits(plots, str(rule), THRESHOLDS.tolist(), named)


if __name__ == "__main__":
    run_light_stage(main)
