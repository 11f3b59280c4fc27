"""Extraction: batches of equal size, mirror images, present classes, resume after a kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from models.cam.classifier import CamClassifier
from models.localizer import Localizer
from models.networks.attention import AttentionSum
from models.propagation.rules import load_rule, rule_names
from models.transcam.hybrid import HybridClassifier
from models.transcam.network import TransCam
from pipeline import extract_cams
from pipeline.config.cams import Cams
from pipeline.config.params import preset_values
from pipeline.data.manifest import Manifest, Record, save_manifest
from pipeline.maps import extraction
from pipeline.maps.store import read_store
from pipeline.run.errors import UserError
from pipeline.run.files import sha256, write_json
from pipeline.training.weights import save_network
from tests.support import ROOT
from tests.support.tiny_training import write_runtime

SIZES = [(40, 48), (48, 40), (40, 48), (1, 70), (40, 48)]
CLASSES = 3
TAGS = [("a",), ("a", "b"), (), ("b",), ("b",)]


def settings(**knobs: Any) -> Cams:
    """The compact knobs of extraction, some of them changed."""
    preset = preset_values("cam", "compact", "scenes")["cams"]
    return Cams.model_validate(preset | {"long_side": None, "scales": [1.0, 0.5], "batch": 2} | knobs)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photographs and an untrained classifier, as the stages before would leave them."""
    folder = tmp_path_factory.mktemp("extraction")
    write_runtime(folder, root="photographs")
    write_json(folder / "data/config/extract_cams.json", settings().model_dump())
    (folder / "photographs").mkdir()
    rng, records = np.random.default_rng(0), []
    for number, ((height, width), tags) in enumerate(zip(SIZES, TAGS, strict=True)):
        picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"photographs/{number}.png")
        records.append(Record(f"image {number}", "train", f"{number}.png", width, height, tags))
    save_manifest(folder / "data/prepared", Manifest(tuple(records), ("a", "b")))
    torch.manual_seed(0)
    network = CamClassifier("efficientnet_lite0", 2)
    description = {"network": "cam_classifier", "backbone": "efficientnet_lite0", "classes": 2}
    save_network(folder / "data/localizer", network, description)
    return folder


def extract(folder: Path, shard_images: int = 2, kill_after: int | None = None, launcher: tuple[str, ...] = ()) -> int:
    """Run the stage with small shards, killed in the middle of the shard after `kill_after`."""
    program = f"""
import os, signal
from pipeline import extract_cams
from pipeline.maps import extraction
from pipeline.run.runtime import distributed
extraction.SHARD_IMAGES = {shard_images}
write, done = extraction.write_shard, []
def write_or_die(*arguments):
    if len(done) == {kill_after}:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(arguments)
    write(*arguments)
extraction.write_shard = write_or_die
with distributed():
    extract_cams.main()
print(len(done), "shards written")
"""
    script = folder / "run.py"
    script.write_text(program)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *launcher, str(script)], cwd=folder, env=environment).returncode


def digest(folder: Path) -> list[str]:
    return [sha256(path) for path in sorted((folder / "data/seeds").iterdir())]


def test_store_holds_what_the_network_says(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    extract_cams.main()
    entries = list(read_store(Path("data/seeds")))
    assert [entry.id for entry in entries] == [f"image {number}" for number in range(5)]
    assert [entry.class_ids for entry in entries] == [(1,), (1, 2), (), (2,), (2,)]
    assert [entry.size for entry in entries] == SIZES
    first = entries[0]
    assert [tuple(scale.shape) for scale in first.maps] == [(1, 3, 3), (1, 2, 2)]  # 40 x 48, and 32 x 32 at least
    assert first.extents == ((48, 48), (40, 48))


def test_maps_are_the_mean_over_mirror_images_and_batching_changes_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    torch.manual_seed(0)
    network = CamClassifier("efficientnet_lite0", 2).eval()
    views, both = torch.randn(3, 3, 48, 64), [(1, 2)] * 3
    together = maps(network, views, both)
    with torch.inference_mode():
        alone = torch.stack(
            [(own_maps(network, v[None]) + own_maps(network, v[None].flip(3)).flip(3))[0] / 2 for v in views]
        )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(maps(network, views.flip(3), both).flip(3), together, atol=1e-5, rtol=1e-5)


def rules(*names: str) -> Cams:
    """The compact knobs with some rules."""
    return settings(rules=list(names))


def own_maps(network: Localizer, view: Tensor) -> Tensor:
    return network.activations(view, torch.ones(1, 2)).classes


def maps(network: Any, views: Tensor, classes: Sequence[tuple[int, ...]], rule: str = "none") -> Tensor:
    """The maps of views with equally many classes, (B, K, h, w)."""
    return torch.stack(extraction.view_maps(network, views, classes, CLASSES, rules(rule))[rule])


def hybrid() -> HybridClassifier:
    """A classifier with attention whose maps are not all alike."""
    torch.manual_seed(0)
    network = HybridClassifier(3, dim=32).eval()
    network.map_head.weight.data.abs_()  # features are positive: so are the maps
    return network


@pytest.fixture
def workspace(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The project as the working folder."""
    monkeypatch.chdir(project)


@pytest.mark.usefixtures("workspace")
def test_coupled_maps_are_attention_times_maps_of_the_same_view() -> None:
    network, view = hybrid(), torch.randn(1, 3, 48, 80)
    expected = []
    for seen in (view, view.flip(3)):
        attention = AttentionSum()
        with torch.inference_mode():
            own = network.parts(seen, [attention]).maps[0, [0, 2]].flatten(1)
        expected.append((own @ attention.mean(0)[1:, 1:].mT).unflatten(1, (3, 5)))
    mean = (expected[0] + expected[1].flip(2)) / 2
    torch.testing.assert_close(maps(network, view, [(1, 3)], "transcam")[0], mean, atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("workspace")
def test_several_rules_cost_one_forward_pass_and_equal_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    network, views, classes = hybrid(), torch.randn(2, 3, 48, 64), [(1,), (1, 3)]
    names = ["adcam", "none", "transcam", "tscam", "rollout", "adcam:gamma=0,steps=1"]
    alone = {rule: extraction.view_maps(network, views, classes, CLASSES, rules(rule))[rule] for rule in names}
    calls: list[int] = []
    monkeypatch.setattr(HybridClassifier, "parts", counted(HybridClassifier.parts, calls))
    together = extraction.view_maps(network, views, classes, CLASSES, rules(*names))
    assert len(calls) == 1 and list(together) == names
    for rule in names:
        for own, mine in zip(alone[rule], together[rule], strict=True):
            torch.testing.assert_close(own, mine)
    assert not torch.allclose(together["adcam"][0], together["adcam:gamma=0,steps=1"][0])


def counted(function: Callable[..., Any], calls: list[int]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        return function(*arguments, **named)

    return call


def test_further_rules_have_stores_of_their_own(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "rules"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns("seeds", ".resume"))
    monkeypatch.chdir(folder)
    config = settings(rules=["adcam", "none"], fusion="minmax", square=True)
    write_json(folder / "data/config/extract_cams.json", config.model_dump())
    save_network(folder / "data/localizer", hybrid(), {"network": "hybrid", "classes": 3, "dim": 32})
    extract_cams.main()
    main, same, other = (
        list(read_store(Path(store))) for store in ("data/seeds", "data/rules/adcam", "data/rules/none")
    )
    assert digest(folder) == [sha256(path) for path in sorted(Path("data/rules/adcam").iterdir())] and len(same) == 5
    assert [entry.id for entry in main] == [entry.id for entry in other] == [f"image {number}" for number in range(5)]
    assert {entry.fusion for entry in main} == {"minmax"}
    assert not torch.equal(main[1].maps[0], other[1].maps[0])
    assert main[0].maps[0].shape == (1, 3, 3), "the longer side of 48, squared"
    assert all(extent >= size for entry in main for extent, size in zip(entry.extents[0], entry.size, strict=True))


@pytest.mark.usefixtures("workspace")
def test_padding_of_a_conformer_is_mirrored_with_the_view() -> None:
    """The mirror image of a view that ends within a token has its padding on the left."""
    torch.manual_seed(0)
    network, view = TransCam("conformer_tiny", 3).eval(), torch.randn(1, 3, 40, 40)
    whole = functional.pad(view, (0, 8, 0, 8))
    for rule in ("none", "adcam"):
        expected = [network.parts(v).maps[0, :2] for v in (whole, whole.flip(3))]
        if rule == "none":
            mean = (expected[0] + expected[1].flip(2)) / 2
            torch.testing.assert_close(maps(network, view, [(1, 2)], rule)[0], mean, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(maps(network, view, [(1, 2)], rule), maps(network, whole, [(1, 2)], rule))


@pytest.mark.usefixtures("workspace")
def test_too_large_a_grid_is_refused_before_any_attention_is_computed() -> None:
    config = settings(rules=["transcam"], max_tokens=10)
    with pytest.raises(UserError, match=r"cams.rules: transcam: a grid of 3 x 4 .* lower the long side"):
        extraction.view_maps(hybrid(), torch.randn(1, 3, 48, 64), [(1,)], CLASSES, config)


@pytest.mark.parametrize("name", [name for name in rule_names() if load_rule(name).earlier is None])
def test_large_grids_are_refused_where_attention_would_be_needed(name: str) -> None:
    network, chosen = hybrid(), extraction.chosen_rules(rules(name), depth=3)
    extraction.refuse_unfit(chosen, network, (64, 64), rules(name).max_tokens)
    if load_rule(name).needs:
        with pytest.raises(UserError, match=r"65 x 64 has 4160 tokens.*max_tokens = 4096.*long side.*scale"):
            extraction.refuse_unfit(chosen, network, (65, 64), rules(name).max_tokens)
    else:
        extraction.refuse_unfit(chosen, network, (65, 64), rules(name).max_tokens)


@pytest.mark.usefixtures("workspace")
def test_earlier_maps_that_the_network_has_not_are_refused() -> None:
    with pytest.raises(UserError, match=r"cams.rules: aux: the network gives no such maps; it gives its own"):
        extraction.view_maps(hybrid(), torch.randn(1, 3, 48, 64), [(1,)], CLASSES, rules("aux"))


@pytest.mark.usefixtures("workspace")
def test_fusion_says_how_mirror_images_are_merged() -> None:
    network, view = hybrid(), torch.randn(1, 3, 48, 64)
    with torch.inference_mode():
        one, other = (network.parts(seen).maps[0, :1] for seen in (view, view.flip(3)))
    for fusion, expected in (("max", (one + other.flip(2)) / 2), ("toco", torch.maximum(one, other.flip(2)))):
        found = extraction.view_maps(network, view, [(1,)], CLASSES, settings(fusion=fusion))["none"][0]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_killed_extraction_continues_to_the_same_bytes(project: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("whole", "killed")]
    for folder in folders:
        shutil.copytree(project, folder, ignore=shutil.ignore_patterns("seeds", ".resume"))
    assert extract(folders[0]) == 0
    assert extract(folders[1], kill_after=1) == -signal.SIGKILL
    finished = list((folders[1] / ".resume").rglob("shard-*.safetensors"))
    assert len(finished) == 1 and not (folders[1] / "data/seeds").exists()
    written = finished[0].stat().st_mtime_ns
    assert extract(folders[1]) == 0
    assert finished[0].stat().st_mtime_ns == written, "a finished shard is not computed again"
    assert digest(folders[0]) == digest(folders[1]) and len(digest(folders[0])) == 3


def test_two_processes_write_the_same_store(project: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        shutil.copytree(project, folder, ignore=shutil.ignore_patterns("seeds", ".resume"))
    assert extract(folders[0]) == 0
    assert extract(folders[1], launcher=("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")) == 0
    assert digest(folders[0]) == digest(folders[1])


def test_knob_processes_starts_torchrun(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "several"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns("seeds", ".resume"))
    write_runtime(folder, root="photographs", processes=2)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pipeline.extract_cams"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((folder / "data/seeds").iterdir())) == 1
