"""Six small photographs in the layouts of two data sets: what is read back is what was written."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.ground_truth import GroundTruth
from pipeline.data.manifest import load_manifest
from pipeline.data.photographs import read_photograph
from pipeline.data.sources.voc2012 import CLASSES
from pipeline.run.told import Runtime, told
from tools.paper_check import small, small_photographs, workspace
from tools.tiny_sets import LAYOUTS, PHOTOGRAPHS, Sample

NAMES = list(CLASSES[:3])


def samples() -> list[Sample]:
    """Photographs of one colour each, with a rectangle of one or two labels."""
    found = []
    for number, split in enumerate(split for split, count in PHOTOGRAPHS.items() for _ in range(count)):
        labels = np.zeros((64, 48 + 16 * (number % 2)), dtype=np.uint8)
        labels[8:40, 4:30] = 1 + number % 3
        labels[40:50, 30:] = 1 + (number + 1) % 3 if number % 2 else 0
        found.append(Sample(split, np.full((*labels.shape, 3), 40 * number, dtype=np.uint8), labels))
    return found


@pytest.mark.parametrize("data", LAYOUTS)
def test_what_is_written_is_what_prepare_data_reads(data: str, tmp_path: Path) -> None:
    written = samples()
    knobs = LAYOUTS[data](tmp_path / "photographs", written, NAMES)
    with workspace(tmp_path / "work", small("cam", knobs)):
        manifest, root = load_manifest(), told("runtime", Runtime).folder
        assert list(manifest.classes) == NAMES
        for split in PHOTOGRAPHS:
            its = [one for one in written if one.split == split]
            for sample, record in zip(its, manifest.split(split).records, strict=True):
                shown = {NAMES[label - 1] for label in np.unique(sample.labels) if label}
                assert set(record.tags) == shown
                np.testing.assert_array_equal(GroundTruth(manifest, root).read(record), sample.labels)
                assert np.abs(read_photograph(root, record).astype(int) - sample.image).max() <= 2, "JPEG"


def test_six_photographs_of_somebodys_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written = samples()
    LAYOUTS["voc2012"](Path("voc").absolute(), written, NAMES)
    found, classes = small_photographs(Path("work").absolute(), Path("voc"))
    assert classes == list(CLASSES)
    for wanted, sample in zip(written, found, strict=True):
        scale = max(sample.labels.shape) / max(wanted.labels.shape)
        assert sample.split == wanted.split and max(sample.labels.shape) == 96 and scale == 1.5
        assert set(np.unique(sample.labels)) == set(np.unique(wanted.labels))


def test_six_scenes(tmp_path: Path) -> None:
    with chdir(tmp_path):
        found, classes = small_photographs(Path("work").absolute(), None)
    assert [one.split for one in found] == ["train"] * 4 + ["val"] * 2
    assert classes == list(CLASSES[: len(classes)]) and max(found[0].labels.shape) == 96
