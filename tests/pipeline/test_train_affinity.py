"""Confident labels, affinity networks on a backbone, and the walks as a stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from models.affinity.networks import AFFINITY_NETWORKS, BoundaryAffinity, FeatureAffinity
from PIL import Image

from pipeline import refine_cams
from pipeline.config.params import TrainAffinityConfig, resolve
from pipeline.data.manifest import Manifest, Record, save_manifest
from pipeline.maps.background import hard_labels, with_background
from pipeline.maps.confident_labels import ConfidencePair, confident_labels
from pipeline.maps.store import CamEntry, fused_maps, read_store, shard_path, write_shard
from pipeline.run.errors import UserError
from pipeline.run.files import write_json
from pipeline.training.weights import save_network
from tests.pipeline.config.test_params import shipped
from tests.support.tiny_training import write_runtime

SIZES = [(64, 80), (64, 80), (1, 90), (50, 530), (64, 80)]
CLASSES = [(1, 2), (2,), (1,), (2,), ()]
RULES = {"affinitynet": "psa_walk", "irn": "irn_walk"}


def affinity_config(method: str, **changes: object) -> TrainAffinityConfig:
    knobs = resolve(shipped(method=method)).affinity.model_dump() | {"seed": 0} | changes
    return TrainAffinityConfig.model_validate(knobs)


@pytest.mark.parametrize(
    "pair",
    [ConfidencePair("alphas", (1.0, 8.0), "psa", 1024), ConfidencePair("thresholds", (0.6, 0.2), "irn", 1024)],
)
def test_confident_labels(pair: ConfidencePair) -> None:
    image = np.zeros((30, 60, 3), np.uint8)
    image[:, 20:40], image[:, 40:] = 110, 230  # three areas, so that the CRF has nothing to move
    maps = np.zeros((1, 30, 60), np.float32)
    maps[0, :, :20], maps[0, :, 20:40], maps[0, :, 40:] = 0.95, 0.4, 0.01
    labels = confident_labels(image, maps, pair)
    areas = [np.unique(labels[:, start : start + 10]).tolist() for start in (5, 25, 45)]
    assert areas == [[1], [255], [0]]


@pytest.mark.parametrize("method", RULES)
def test_network_shapes_and_what_learns(method: str) -> None:
    torch.manual_seed(0)
    network = AFFINITY_NETWORKS[method]("efficientnet_lite0").train()
    images, labels = torch.randn(2, 3, 64, 96), torch.randint(0, 3, (2, 64, 96))
    loss, terms = network.loss(network(images), labels, radius=4)
    loss.backward()
    assert set(terms) == {"background", "foreground", "different"} and loss > 0
    learns = any(parameter.grad is not None for parameter in network.backbone.parameters())
    assert learns == (method == "affinitynet")
    assert all(parameter.grad is not None for parameter in network.head.parameters())
    affinity, boundary = network.eval().affinity(torch.randn(1, 3, 50, 75), 5, "full")
    stride = network.stride
    assert affinity.shape == (1, 34, -(-50 // stride), -(-75 // stride))
    assert affinity.min() >= 0 and affinity.max() <= 1
    assert (boundary is None) == (method == "affinitynet")


def test_published_reading_changes_widths_and_scale() -> None:
    assert FeatureAffinity("efficientnet_lite0", "published").head.mix.in_channels == 896
    labels, logits = torch.randint(0, 3, (1, 64, 64)), torch.randn(1, 1, 16, 16)
    networks = [BoundaryAffinity("resnet50", reading) for reading in ("released", "published")]
    released, published = (network.loss(logits, labels, 4)[0] for network in networks)
    assert published == pytest.approx(2 * released.item())


def test_boundary_needs_a_fine_map() -> None:
    with pytest.raises(ValueError, match="stride 4"):
        BoundaryAffinity("resnet38")


@pytest.fixture(params=RULES)
def project(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photographs, seeds and an untrained affinity network."""
    monkeypatch.chdir(tmp_path)
    write_runtime(tmp_path, root="photographs")
    method: str = request.param
    config = resolve(shipped(method=method)).refine.model_copy(update={"long_side": None, "batch": 2})
    write_json(Path("data/config/refine_cams.json"), config.model_dump())
    rng, records, entries = np.random.default_rng(0), [], []
    Path("photographs").mkdir()
    for number, ((height, width), classes) in enumerate(zip(SIZES, CLASSES, strict=True)):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photographs/{number}.png")
        records.append(
            Record(str(number), "train", f"{number}.png", width, height, tuple("ab"[k - 1] for k in classes))
        )
        maps = torch.randn(len(classes), 4, 5, generator=torch.Generator().manual_seed(number))
        entries.append(CamEntry(str(number), (height, width), classes, (maps,), ((height, width),)))
    save_manifest(Path("data/prepared"), Manifest(tuple(records), ("a", "b")))
    write_shard(shard_path(Path("data/seeds"), 0), entries[:3], {})
    write_shard(shard_path(Path("data/seeds"), 1), entries[3:], {})
    torch.manual_seed(0)
    network = AFFINITY_NETWORKS[method]("efficientnet_lite0")
    description = {"network": method, "backbone": "efficientnet_lite0", "reading": "released"}
    save_network(Path("data/affinity"), network, description)
    return tmp_path


def test_walks_of_any_size_and_without_classes(project: Path) -> None:
    refine_cams.main()
    entries = list(read_store(Path("data/refined")))
    assert [entry.id for entry in entries] == list("01234")
    for entry, size, classes in zip(entries, SIZES, CLASSES, strict=True):
        maps, background = fused_maps(entry, size)
        assert maps.shape == (len(classes), *size) and entry.fusion == "scores" and entry.class_ids == classes
        assert np.isfinite(maps).all() and maps.max(initial=0) <= 1.001
        labels = hard_labels(with_background(maps, None, background), classes)
        assert set(np.unique(labels)) <= {0, *classes}
    refine_cams.main()  # a second run starts from finished shards


def test_batched_walk_equals_walking_alone(project: Path) -> None:
    refine_cams.main()
    together = list(read_store(Path("data/refined")))
    config = Path("data/config/refine_cams.json")
    config.write_text(config.read_text().replace('"batch": 2', '"batch": 1'))
    refine_cams.main()
    for one, other in zip(together, read_store(Path("data/refined")), strict=True):
        torch.testing.assert_close(one.maps, other.maps, atol=2e-3, rtol=0)


def test_wrong_pair_of_rule_and_network_is_said(project: Path) -> None:
    write_json(Path("data/affinity/network.json"), {"network": "none"})
    with pytest.raises(UserError, match=r"needs affinity\.network"):
        refine_cams.main()
