"""Stage extract_cams: what the store holds, rules beside each other, a kill, several processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch

from models.transcam.hybrid import HybridClassifier
from pipeline import extract_cams
from pipeline.maps import extraction
from pipeline.maps.store import CamEntry, read_store
from pipeline.run.files import sha256
from pipeline.run.runtime import distributed
from pipeline.run.told import Runtime, told
from pipeline.training.weights import save_network
from tests.support import ROOT
from tests.support.processes import Ended, forked, several
from tests.support.project import configure, write_network, write_photographs
from tests.support.stages import run, write_runtime

SIZES = [(40, 48), (48, 40), (40, 48), (1, 70), (40, 48)]
TAGS = [("a",), ("a", "b"), (), ("b",), ("b",)]
KNOBS: dict[str, Any] = {"cams__long_side": "none", "cams__scales": [1.0, 0.5], "cams__batch": 2}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photographs and an untrained classifier, as the stages before would leave them."""
    folder = tmp_path_factory.mktemp("extraction")
    write_photographs(folder, TAGS, SIZES, ids="image {}")
    configure(folder, **KNOBS)
    write_network(
        folder / "data/localizer", {"network": "cam_classifier", "backbone": "efficientnet_lite0", "classes": 2}
    )
    return folder


@pytest.fixture
def copy(project: Path, tmp_path: Path) -> Path:
    """The project before the stage, for one test."""
    shutil.copytree(project, tmp_path, ignore=shutil.ignore_patterns("seeds", "rules", ".resume"), dirs_exist_ok=True)
    return tmp_path


def extract(shard_images: int = 2, kill_after: int | None = None) -> None:
    """Run the stage in the current folder with small shards, killed in the middle of the shard after `kill_after`."""
    write, done = extraction.write_shard, list[Path]()

    def write_or_die(path: Path, entries: list[CamEntry], facts: dict[str, Any]) -> None:
        if len(done) == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(path)
        write(path, entries, facts)

    with pytest.MonkeyPatch.context() as monkeypatch, distributed(told("runtime", Runtime)) as machine:
        monkeypatch.setattr(extraction, "SHARD_IMAGES", shard_images)
        monkeypatch.setattr(extraction, "write_shard", write_or_die)
        extract_cams.main(machine)


def killed(folder: Path, kill_after: int | None = None) -> Ended:
    """Run the stage in a process of its own."""
    with chdir(folder):
        return forked(lambda: extract(kill_after=kill_after))


def digest(folder: Path) -> list[str]:
    return [sha256(path) for path in sorted((folder / "data/seeds").iterdir())]


@pytest.fixture(scope="module")
def whole(project: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Hashes of the shards that one process writes, two photographs in each."""
    folder = tmp_path_factory.mktemp("whole") / "project"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns("seeds", "rules", ".resume"))
    assert killed(folder).status == 0
    return digest(folder)


def test_store_holds_what_the_network_says(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    run(extract_cams)
    entries = list(read_store(Path("data/seeds")))
    assert [entry.id for entry in entries] == [f"image {number}" for number in range(5)]
    assert [entry.class_ids for entry in entries] == [(1,), (1, 2), (), (2,), (2,)]
    assert [entry.size for entry in entries] == SIZES
    first = entries[0]
    assert [tuple(scale.shape) for scale in first.maps] == [(1, 3, 3), (1, 2, 2)]  # 40 x 48, and 32 x 32 at least
    assert first.extents == ((48, 48), (40, 48))


def test_validation_maps_are_asked_for_and_lie_apart(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy)
    write_photographs(copy, TAGS, SIZES, ids="image {}", val=2)
    run(extract_cams)
    before = digest(copy)
    assert list(Path("data/validation/seeds").iterdir()) == []
    configure(**KNOBS, cams__validation=True)
    run(extract_cams)
    held_out = list(read_store(Path("data/validation/seeds")))
    assert [(entry.id, entry.class_ids) for entry in held_out] == [("image 3", (2,)), ("image 4", (2,))]
    assert len(list(read_store(Path("data/seeds")))) == 3
    assert digest(copy) == before, "the training photographs' maps do not know of it"
    configure(**KNOBS)
    run(extract_cams)
    assert list(Path("data/validation/seeds").iterdir()) == [] and digest(copy) == before


def test_further_rules_have_stores_of_their_own(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy)
    configure(method="adcam", **KNOBS, cams__rules=["adcam", "none"], cams__fusion="minmax", cams__square=True)
    torch.manual_seed(0)
    network = HybridClassifier(3, dim=32)
    network.map_head.weight.data.abs_()  # features are positive: so are the maps
    save_network(Path("data/localizer"), network, {"network": "hybrid", "classes": 3, "dim": 32})
    run(extract_cams)
    main, same, other = (
        list(read_store(Path(store))) for store in ("data/seeds", "data/rules/adcam", "data/rules/none")
    )
    assert digest(copy) == [sha256(path) for path in sorted(Path("data/rules/adcam").iterdir())] and len(same) == 5
    assert [entry.id for entry in main] == [entry.id for entry in other] == [f"image {number}" for number in range(5)]
    assert {entry.fusion for entry in main} == {"minmax"}
    assert not torch.equal(main[1].maps[0], other[1].maps[0])
    assert main[0].maps[0].shape == (1, 3, 3), "the longer side of 48, squared"
    assert all(extent >= size for entry in main for extent, size in zip(entry.extents[0], entry.size, strict=True))


def test_killed_extraction_continues_to_the_same_bytes(copy: Path, whole: list[str]) -> None:
    assert killed(copy, kill_after=1).status == -signal.SIGKILL
    finished = list((copy / ".resume").rglob("shard-*.safetensors"))
    assert len(finished) == 1 and not (copy / "data/seeds").exists()
    written = finished[0].stat().st_mtime_ns
    assert killed(copy).status == 0
    assert finished[0].stat().st_mtime_ns == written, "a finished shard is not computed again"
    assert digest(copy) == whole and len(whole) == 3


def test_two_processes_write_the_same_store(copy: Path, whole: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy)
    assert [process.status for process in several(2, extract)] == [0, 0]
    assert digest(copy) == whole


def test_knob_processes_starts_torchrun(copy: Path) -> None:
    write_runtime(copy, root="photographs", processes=2)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipeline.extract_cams"]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((copy / "data/seeds").iterdir())) == 1
