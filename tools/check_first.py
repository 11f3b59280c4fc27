"""Rank all pseudo masks by how doubtful they are, so that a person corrects the worst first.

    python -m tools.check_first check_first.csv
    python -m tools.check_first check_first.csv --predictions predictions_of_the_training_photographs

`metrics/plots/masks/check_first.csv` and the report hold the first of the same list. It reads `data/masks`, and the
maps that they were made of; with predictions of the same photographs, their disagreement counts too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from pipeline.data.manifest import load_manifest
from pipeline.make_masks import INPUT, OUTPUT, MakeMasksConfig
from pipeline.run.errors import UserError
from pipeline.run.stage import run_stage
from pipeline.run.told import told
from pipeline.scoring.check_first import doubts, ranking, save_ranking


def main() -> None:
    """Write the whole list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the CSV to write")
    parser.add_argument("--predictions", type=Path, help="folder of <id>.png by a network, of training photographs")
    arguments = parser.parse_args()
    config, manifest = told("make_masks", MakeMasksConfig), load_manifest().split("train")
    if config.source != "maps":
        raise UserError("the masks are true ones (masks.source = truth): there is nothing to check")
    if arguments.predictions is not None and not any(arguments.predictions.glob("*.png")):
        raise UserError(f"{arguments.predictions}: no such folder, or no PNG in it; give one of <id>.png")
    found = doubts(INPUT["train"], OUTPUT["train"], manifest, config.bg_thresh, arguments.predictions)
    table = ranking(tqdm(found, total=len(manifest.records), desc="masks", disable=None))
    save_ranking(arguments.out, table)
    print(f"{arguments.out}: {len(table)} masks, the most doubtful first: {', '.join(table['id'][:5])}")


if __name__ == "__main__":
    run_stage(main)
