"""Files that DVC does not know, changed between runs: no earlier result of them comes back, from no cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.masks import write_mask
from tests.support.knobs import set_knobs
from tests.support.project import coarse, write_masks, write_photographs
from tools.smoke import copy_repository, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone, and beside it a folder of six photographs with masks of label 1."""
    place = tmp_path_factory.mktemp("outside")
    folder = copy_repository(place / "clone")
    manifest = write_photographs(place, val=2, paint=coarse)
    write_masks(place, manifest, lambda _, record: np.ones(record.size, dtype=np.uint8))
    photographs = place / "photographs"
    (photographs / "masks").mkdir()
    for number in range(6):
        shutil.move(photographs / f"{number}-mask.png", photographs / f"masks/{number}.png")
    rows = [f"{r.image},{'|'.join(r.tags)},{r.split}\n" for r in manifest.records]
    (photographs / "labels.csv").write_text("image,labels,split\n" + "".join(rows))
    set_knobs(
        folder / "params.yaml", {"data.name": "folder", "data.root": str(photographs), "data.folder.masks": "masks"}
    )
    return folder


def hashes(project: Path) -> dict[str, str]:
    """What prepare_data says of the masks after `dvc repro`."""
    run("dvc", "repro", "prepare_data", cwd=project, quiet=True)
    found: dict[str, str] = json.loads((project / "data/prepared/ground_truth.json").read_text())["sha256"]
    return found


def test_changed_masks_count_with_every_setting_that_ran_before(project: Path) -> None:
    before = hashes(project)
    set_knobs(project / "params.yaml", {"data.max_megapixels": 50.0})
    assert hashes(project) == before
    masks = project.parent / "photographs/masks"
    for path in masks.iterdir():
        write_mask(path, np.full((40, 56), 2, dtype=np.uint8))
    changed = hashes(project)
    assert not set(changed.values()) & set(before.values())
    set_knobs(project / "params.yaml", {"data.max_megapixels": 60.0})
    assert hashes(project) == changed, "the run cache knows the setting with the masks of before"


def test_an_edited_table_counts(project: Path) -> None:
    hashes(project)
    table = project.parent / "photographs/labels.csv"
    table.write_text(table.read_text().replace("0.png,a,", "0.png,a|b,"))
    hashes(project)
    rows = (project / "data/prepared/manifest.csv").read_text().splitlines()
    assert any("a|b" in row for row in rows)


def test_nothing_runs_where_nothing_has_changed(project: Path) -> None:
    hashes(project)
    output = run("dvc", "repro", "prepare_data", cwd=project, quiet=True)
    assert "Running stage 'configure'" in output and "Running stage 'prepare_data'" not in output
