"""The localizer from Python gives the maps that the stage stores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.build import classifier_description
from pipeline import extract_cams
from pipeline.data.manifest import load_manifest
from pipeline.extract_cams import Localizer
from pipeline.maps.store import fused_maps, read_store
from pipeline.run.errors import UserError
from tests.support.project import PHOTOGRAPHS, coarse, configure, write_network, write_photographs
from tests.support.stages import run


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photographs with one, two and no classes, and an untrained classifier as the localizer."""
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        write_photographs(Path(), [("a",), ("a", "b"), ()], paint=coarse)
        write_network(Path("data/localizer"), classifier_description("efficientnet_lite0", 2, 0.0))
        configure(data__name="folder", data__root=PHOTOGRAPHS, cams__long_side=64, cams__scales=[1.0, 1.5])
        run(extract_cams)
    return tmp_path


def test_maps_are_those_of_the_store(project: Path) -> None:
    localizer = Localizer(project, device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        stored = {entry.id: entry for entry in read_store(Path("data/seeds"))}
        records = load_manifest().records
    for record in records:
        found = localizer(project / PHOTOGRAPHS / record.image, record.tags)
        wanted, _ = fused_maps(stored[record.id], record.size)
        assert list(found) == list(record.tags)
        for grid, name in zip(wanted, record.tags, strict=True):
            np.testing.assert_allclose(found[name], grid, atol=2e-3, err_msg="the store has 16 bits")


def test_unknown_tags_and_missing_networks_are_named(project: Path) -> None:
    with pytest.raises(UserError, match="no class is called cat; there are a, b"):
        Localizer(project)(np.zeros((40, 56, 3), dtype=np.uint8), ["cat"])
    with pytest.raises(UserError, match="the stage prepare_data writes it"):
        Localizer(project / "nowhere")
