"""The second trainings: BAO with its target network, AMN; exact continuation, tracked maps, readings."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.bao import task as localizers
from models.localizers import LOCALIZERS
from pipeline import train_localizer
from pipeline.config.params import TrainLocalizerConfig, resolve, stage_configs
from pipeline.data.manifest import Manifest, Record, save_manifest
from pipeline.maps.store import read_store
from pipeline.run.errors import UserError
from pipeline.run.files import read_json, write_json
from pipeline.training.weights import load_network, save_network
from tests.pipeline.config.test_params import shipped
from tests.support.interruption import continued_equals_whole
from tests.support.tiny_training import write_runtime

CLASSES = ("a", "b")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six photographs, one without a class, and an untrained classifier with attention."""
    monkeypatch.chdir(tmp_path)
    write_runtime(tmp_path, root="photographs")
    Path("photographs").mkdir()
    rng, records = np.random.default_rng(0), []
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(f"photographs/{number}.png")
        tags = () if number == 2 else (CLASSES[number % 2],)
        records.append(Record(str(number), "train", f"{number}.png", 56, 40, tags))
    save_manifest(Path("data/prepared"), Manifest(tuple(records), CLASSES))
    torch.manual_seed(0)
    description = {"network": "transcam", "size": "conformer_tiny", "classes": 2, "drop_path": 0.1}
    save_network(Path("data/classifier"), LOCALIZERS["transcam"]("conformer_tiny", 2, 0.1), description)
    return tmp_path


def configure(method: str = "bao", **knobs: Any) -> None:
    """The shipped configuration, small."""
    small = {"epochs": 2, "batch": 2} | knobs.pop("optimisation", {})
    changes = {f"localizer__{key}": value for key, value in {"target_schedule": ["0:share", "1:ema"], **knobs}.items()}
    changes |= {f"localizer__optimisation__{key}": value for key, value in small.items()}
    changes |= {"localizer__augmentation__long_side": [48, 64], "localizer__augmentation__crop": 64}
    changes |= {"localizer__weights": "none", "cams__scales": [1.0], "cams__long_side": 64}
    config = stage_configs(resolve(shipped(method=method, **changes)))["train_localizer"]
    TrainLocalizerConfig.model_validate(config)
    write_json(Path("data/config/train_localizer.json"), config)


def weights() -> dict[str, torch.Tensor]:
    return load_network(Path("data/localizer"), LOCALIZERS, "train_localizer").state_dict()


def test_bao_trains_and_leaves_maps_of_both_networks_after_every_epoch(project: Path) -> None:
    configure(track=3)
    train_localizer.main()
    assert read_json(Path("data/localizer/network.json"), "")["network"] == "bao"
    stores = sorted(path.name for path in Path("data/localizer/epochs").iterdir())
    assert stores == ["online-01", "online-02", "target-01", "target-02"]
    entries = {name: list(read_store(Path("data/localizer/epochs") / name)) for name in stores}
    assert all([entry.id for entry in found] == ["0", "1", "2"] for found in entries.values())
    assert all(len(entry.background) == 1 for found in entries.values() for entry in found)
    shared, apart = (
        torch.equal(entries[f"online-{epoch}"][0].maps[0], entries[f"target-{epoch}"][0].maps[0])
        for epoch in ("01", "02")
    )
    assert shared and not apart, "the target shares in the first epoch and averages in the second"


@pytest.mark.parametrize("schedule", [["0:share", "1:ema"], ["0:auto"]])
def test_killed_bao_continues_to_the_same_bytes(
    project: Path, monkeypatch: pytest.MonkeyPatch, schedule: list[str]
) -> None:
    configure(track=2, target_schedule=schedule, optimisation={"epochs": 3})
    saved = continued_equals_whole(
        monkeypatch, [Path("data/localizer/weights.safetensors")], lambda names: len(names) == 2
    )
    assert len(saved) == 3, "no epoch is trained twice"


def test_schedules_differ_and_freeze_keeps_the_first_target(project: Path) -> None:
    results = {}
    for name, schedule in {"share": ["0:share"], "ema": ["0:ema"], "freeze": ["0:freeze"]}.items():
        configure(target_schedule=schedule, momentum=[0.5, 0.5])
        train_localizer.main()
        results[name] = weights()
    classifier = load_network(Path("data/classifier"), LOCALIZERS, "").state_dict()
    frozen = {
        name.removeprefix("base."): value for name, value in results["freeze"].items() if name.startswith("base.")
    }
    assert all(torch.equal(frozen[name], value) for name, value in classifier.items())
    key = "base.backbone.conv_cls_head.weight"
    assert len({results[name][key].sum().item() for name in results}) == 3


def test_readings_differ_in_statistics_and_padding(project: Path) -> None:
    found = {}
    for reading in ("clean", "released"):
        configure(reading=reading, target_schedule=["0:freeze"])
        train_localizer.main()
        found[reading] = weights()["base.backbone.bn1.running_mean"]
    first = load_network(Path("data/classifier"), LOCALIZERS, "").state_dict()["backbone.bn1.running_mean"]
    assert torch.equal(found["clean"], first)
    assert not torch.equal(found["released"], first), "its own forward passes move the target's statistics"


def test_static_labels_train_the_online_network(project: Path) -> None:
    configure(label_source="static", confidence_pair=[0.6, 0.25])
    train_localizer.main()
    labels = sorted(Path(".resume/train_localizer").rglob("labels/*.png"))
    assert len(labels) == 6
    classifier = load_network(Path("data/classifier"), LOCALIZERS, "").state_dict()
    assert not torch.equal(weights()["base.backbone.conv_cls_head.weight"], classifier["backbone.conv_cls_head.weight"])


def test_bao_needs_attention(project: Path) -> None:
    description = {"network": "cam_classifier", "backbone": "efficientnet_lite0", "classes": 2}
    save_network(Path("data/classifier"), LOCALIZERS["cam_classifier"]("efficientnet_lite0", 2), description)
    configure()
    with pytest.raises(UserError, match="needs a classifier with attention"):
        train_localizer.main()


def test_amn_learns_static_labels_of_a_plain_classifier(project: Path) -> None:
    description = {"network": "cam_classifier", "backbone": "efficientnet_lite0", "classes": 2}
    save_network(Path("data/classifier"), LOCALIZERS["cam_classifier"]("efficientnet_lite0", 2), description)
    configure("amn", confidence_pair=[0.5, 0.2])
    train_localizer.main()
    network = load_network(Path("data/localizer"), LOCALIZERS, "")
    maps, background, _ = network.eval().activations(torch.zeros(1, 3, 64, 64), torch.ones(1, 2))
    assert maps.shape == (1, 2, 4, 4) and background is not None and background.shape == (1, 4, 4)


def test_automatic_switch_keeps_its_state(project: Path) -> None:
    configure(target_schedule=["0:auto"])
    train_localizer.main()
    (checkpoint,) = Path(".resume/train_localizer").rglob("checkpoint.pt")
    state = torch.load(checkpoint, weights_only=True)
    assert set(state["companion"]["switch"]) == set(localizers.RiseSwitch.STATE)
    assert state["history"][-1]["switched"] in (0.0, 1.0)


def test_automatic_switch_waits_for_two_epochs_that_cover_more(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = itertools.count()
    monkeypatch.setattr(localizers, "foreground_share", lambda labels: torch.tensor(next(shares) / 1000))
    configure(target_schedule=["0:auto"], optimisation={"epochs": 4})
    train_localizer.main()
    (checkpoint,) = Path(".resume/train_localizer").rglob("checkpoint.pt")
    history = torch.load(checkpoint, weights_only=True)["history"]
    assert [epoch["switched"] for epoch in history] == [0, 0, 1, 1]
