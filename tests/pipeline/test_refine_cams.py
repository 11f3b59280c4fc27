"""The walks as a stage: photographs of any size, batches, a wrong pair of rule and network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import refine_cams
from pipeline.maps.background import hard_labels, with_background
from pipeline.maps.store import CamEntry, fused_maps, read_store, shard_path, write_shard
from pipeline.run.errors import UserError
from pipeline.run.files import sha256, write_json
from tests.support.project import configure, write_network, write_photographs
from tests.support.stages import run

SIZES = [(64, 80), (64, 80), (1, 90), (50, 530), (64, 80)]
CLASSES = [(1, 2), (2,), (1,), (2,), ()]
METHODS = ("affinitynet", "irn")


@pytest.fixture(params=METHODS)
def project(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photographs, seeds and an untrained affinity network."""
    monkeypatch.chdir(tmp_path)
    method: str = request.param
    write_photographs(tmp_path, [["ab"[label - 1] for label in labels] for labels in CLASSES], SIZES)
    write_seeds()
    set_batch(method, 2)
    description = {"network": method, "backbone": "efficientnet_lite0", "reading": "released"}
    write_network(Path("data/affinity"), description)
    return tmp_path


def write_seeds() -> None:
    """Random maps of every photograph, in two shards."""
    entries = []
    for number, (size, labels) in enumerate(zip(SIZES, CLASSES, strict=True)):
        maps = torch.randn(len(labels), 4, 5, generator=torch.Generator().manual_seed(number))
        entries.append(CamEntry(str(number), size, labels, (maps,), (size,)))
    write_shard(shard_path(Path("data/seeds"), 0), entries[:3], {})
    write_shard(shard_path(Path("data/seeds"), 1), entries[3:], {})


def set_batch(method: str, batch: int) -> None:
    configure(method=method, refine__long_side="none", refine__batch=batch)


def digests(folder: str) -> dict[str, str]:
    """The hash of each file in a folder."""
    return {path.name: sha256(path) for path in Path(folder).iterdir()}


def test_walks_of_any_size_and_without_classes(project: Path) -> None:
    run(refine_cams)
    entries = list(read_store(Path("data/refined")))
    assert [entry.id for entry in entries] == list("01234")
    for entry, size, classes in zip(entries, SIZES, CLASSES, strict=True):
        maps, background = fused_maps(entry, size)
        assert maps.shape == (len(classes), *size) and entry.fusion == "scores" and entry.class_ids == classes
        assert np.isfinite(maps).all() and maps.max(initial=0) <= 1.001
        labels = hard_labels(with_background(maps, None, background), classes)
        assert set(np.unique(labels)) <= {0, *classes}
    run(refine_cams)  # a second run starts from finished shards


@pytest.mark.parametrize("rule", ["walk", "none"])
def test_validation_maps_are_refined_as_a_store_of_their_own(project: Path, rule: str) -> None:
    if rule == "none":
        configure(method="cam")
    run(refine_cams)
    expected = {entry.id: entry for entry in read_store(Path("data/refined"))}
    write_photographs(project, [["ab"[label - 1] for label in labels] for labels in CLASSES], SIZES, val=2)
    Path("data/validation/seeds").mkdir(parents=True)
    shard = Path("data/seeds/shard-00001.safetensors").rename("data/validation/seeds/shard-00000.safetensors")
    run(refine_cams)
    found = [[entry.id for entry in read_store(Path(store))] for store in ("data/refined", "data/validation/refined")]
    assert found == [["0", "1", "2"], ["3", "4"]]
    for entry in read_store(Path("data/validation/refined")):
        torch.testing.assert_close(entry.maps, expected[entry.id].maps, atol=2e-3, rtol=0)
    with_them = digests("data/refined")
    shard.unlink()
    run(refine_cams)
    assert digests("data/refined") == with_them, "the training photographs' maps do not know of them"
    assert digests("data/validation/refined") == {}


def test_batched_walk_equals_walking_alone(project: Path, request: pytest.FixtureRequest) -> None:
    run(refine_cams)
    together = list(read_store(Path("data/refined")))
    set_batch(request.node.callspec.params["project"], 1)
    run(refine_cams)
    for one, other in zip(together, read_store(Path("data/refined")), strict=True):
        torch.testing.assert_close(one.maps, other.maps, atol=2e-3, rtol=0)


@pytest.mark.parametrize("project", ["irn"], indirect=True)
def test_maps_walk_to_a_power(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[float, list[torch.Tensor]] = {}
    walk = refine_cams.irn_walk
    for power in (1.0, 1.3):

        def irn_walk(cam: torch.Tensor, *rest: Any, power: float = power, **knobs: Any) -> Any:
            seen.setdefault(power, []).append(cam)
            return walk(cam, *rest, **knobs)

        monkeypatch.setattr(refine_cams, "irn_walk", irn_walk)
        configure(method="irn", refine__long_side="none", refine__batch=2, refine__power=power)
        run(refine_cams)
    for plain, powered in zip(seen[1.0], seen[1.3], strict=True):
        torch.testing.assert_close(plain**1.3, powered)


def test_wrong_pair_of_rule_and_network_is_said(project: Path) -> None:
    write_json(Path("data/affinity/network.json"), {"network": "none"})
    with pytest.raises(UserError, match=r"needs affinity\.network"):
        run(refine_cams)
