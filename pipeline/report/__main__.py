"""Stage report: one page with the numbers, curves and pictures of the whole run; it computes no score of its own.

Writes `metrics/report`: `index.html`, which holds all that it shows (no script, nothing from a network), and
`miou.png` with its numbers `miou.csv`. Ground-truth masks are read to be shown beside the others, for nothing else.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.report.finished import load_run
from pipeline.report.page import mious, page, split_of
from pipeline.report.pictures import (
    figure_uri,
    miou_figure,
)
from pipeline.run.files import new_folder, write_text
from pipeline.run.stage import run_light_stage
from pipeline.run.told import Runtime
from pipeline.scoring.artefacts import ARTEFACTS
from pipeline.scoring.charts import save_figure, save_table

OUTPUT = Path("metrics/report")


def main(runtime: Runtime) -> None:
    """Write the page and the chart."""
    run = load_run(runtime.folder)
    rows = [(name, split_of(run, name), *mious(run.scores[name])) for name in ARTEFACTS]
    with new_folder(OUTPUT) as folder:
        columns = zip(("artefact", "split", "miou", "oracle_miou"), zip(*rows, strict=True), strict=True)
        save_table(folder / "miou.csv", dict(columns))
        save_figure(folder / "miou.png", miou_figure(rows))
        write_text(folder / "index.html", page(run, figure_uri(miou_figure(rows))))
    print(f"the report is {OUTPUT / 'index.html'}")


if __name__ == "__main__":
    run_light_stage(main)
