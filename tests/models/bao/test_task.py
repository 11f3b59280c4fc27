"""The training of BAO: both networks' maps, exact continuation, schedules, readings, static labels."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from models.bao import task
from models.bao.target import RiseSwitch
from pipeline import train_localizer
from pipeline.config.load import resolve
from pipeline.maps.store import read_store
from pipeline.run.errors import UserError
from pipeline.run.files import read_json
from tests.support import project as shared
from tests.support.knobs import shipped
from tests.support.project import write_network, write_photographs
from tests.support.stages import run
from tests.support.trainings import CLASSIFIER, LOCALIZER, WEIGHTS, Trainings, continued_equals_whole, here

CONFORMER = {"network": "transcam", "size": "conformer_tiny", "classes": 2, "drop_path": 0.1}
STATISTICS = "backbone.bn1.running_mean"
HEAD = "backbone.conv_cls_head.weight"
SMALL: dict[str, Any] = {
    "optimisation__epochs": 2,
    "optimisation__batch": 2,
    "augmentation__long_side": [48, 64],
    "augmentation__crop": 64,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photographs, one without a class, and an untrained classifier with attention."""
    folder = tmp_path_factory.mktemp("bao")
    write_photographs(folder)
    write_network(folder / CLASSIFIER, CONFORMER)
    return folder


@pytest.fixture
def project(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current folder."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trainings(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    return Trainings(prepared, tmp_path_factory.mktemp("trained"), configure)


def configure(method: str = "bao", **knobs: Any) -> None:
    """What the stage is told: the shipped configuration, small; knobs stand below `localizer`."""
    if method == "bao":
        knobs = {"bao__target_schedule": ["0:share", "1:ema"], **knobs}
    changes: dict[str, Any] = {f"localizer__{key}": value for key, value in (SMALL | knobs).items()}
    maps: dict[str, Any] = {"cams__scales": [1.0], "cams__long_side": 64}
    shared.configure(stages=["train_localizer"], method=method, **maps, **changes)


def test_bao_trains_and_leaves_maps_of_both_networks_after_every_epoch(trainings: Trainings) -> None:
    trained = trainings(bao__track=3)
    assert read_json(trained.folder / LOCALIZER / "network.json", "")["network"] == "bao"
    epochs = trained.folder / LOCALIZER / "epochs"
    stores = sorted(path.name for path in epochs.iterdir())
    assert stores == ["online-01", "online-02", "target-01", "target-02"]
    entries = {name: list(read_store(epochs / name)) for name in stores}
    assert all([entry.id for entry in found] == ["0", "1", "2"] for found in entries.values())
    assert all(len(entry.background) == 1 for found in entries.values() for entry in found)
    same, apart = (
        torch.equal(entries[f"online-{epoch}"][0].maps[0], entries[f"target-{epoch}"][0].maps[0])
        for epoch in ("01", "02")
    )
    assert same and not apart, "the target shares in the first epoch and averages in the second"


@pytest.mark.parametrize("schedule", [["0:share", "1:ema"], ["0:auto"]])
def test_killed_bao_continues_to_the_same_bytes(
    project: Path, monkeypatch: pytest.MonkeyPatch, schedule: list[str]
) -> None:
    configure(bao__track=2, bao__target_schedule=schedule, optimisation__epochs=3)
    saved = continued_equals_whole(monkeypatch, [LOCALIZER / WEIGHTS], lambda names: len(names) == 2)
    assert len(saved) == 3, "no epoch is trained twice"


def test_schedules_differ_and_freeze_keeps_the_first_target(trainings: Trainings) -> None:
    found = {
        mode: trainings(bao__target_schedule=[f"0:{mode}"], bao__momentum=[0.5, 0.5])
        for mode in ("share", "ema", "freeze")
    }
    results = {mode: trained.weights() for mode, trained in found.items()}
    frozen = {
        name.removeprefix("base."): value for name, value in results["freeze"].items() if name.startswith("base.")
    }
    classifier = found["freeze"].weights(CLASSIFIER)
    assert all(torch.equal(frozen[name], value) for name, value in classifier.items())
    assert len({weights[f"base.{HEAD}"].sum().item() for weights in results.values()}) == 3


def test_readings_differ_in_statistics_and_padding(trainings: Trainings) -> None:
    frozen = {"bao__target_schedule": ["0:freeze"], "bao__momentum": [0.5, 0.5]}
    clean, released = trainings(**frozen), trainings(**frozen, bao__reading="released")
    first = clean.weights(CLASSIFIER)[STATISTICS]
    assert torch.equal(clean.weights()[f"base.{STATISTICS}"], first)
    moved = released.weights()[f"base.{STATISTICS}"]
    assert not torch.equal(moved, first), "its own forward passes move the target's statistics"


@pytest.mark.parametrize("profile", ["compact", "paper"])
def test_static_labels_need_no_schedule_of_the_target(profile: str) -> None:
    """That of `bao` begins after the epochs of `bao_static` on scenes."""
    knobs = resolve(shipped(method="bao_static", profile=profile)).localizer
    assert knobs.bao.label_source == "static" and knobs.optimisation.epochs == 10
    beyond = [phase for phase in knobs.bao.phases() if phase[0] >= knobs.optimisation.epochs]
    assert bool(beyond) == (profile == "compact")


def test_static_labels_train_the_online_network(trainings: Trainings) -> None:
    """With the preset's own epochs, below the target's schedule, of one step each."""
    preset = {"method": "bao_static", "optimisation__epochs": "preset", "optimisation__batch": 6}
    trained = trainings(**preset, bao__confidence_pair=[0.6, 0.25])
    labels = sorted((trained.folder / ".resume/train_localizer").rglob("labels/*.png"))
    assert len(labels) == 6
    assert not torch.equal(trained.weights()[f"base.{HEAD}"], trained.weights(CLASSIFIER)[HEAD])
    assert len(trained.history()) == 10 and "disagreement" not in trained.history()[0]


def test_bao_needs_attention(project: Path) -> None:
    plain = {"network": "cam_classifier", "backbone": "efficientnet_lite0", "classes": 2}
    write_network(CLASSIFIER, plain)
    configure()
    with pytest.raises(UserError, match="needs a classifier with attention"):
        run(train_localizer)


def test_automatic_switch_waits_for_two_epochs_that_cover_more(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = itertools.count()
    monkeypatch.setattr(task, "foreground_share", lambda labels: torch.tensor(next(shares) / 1000))
    configure(bao__target_schedule=["0:auto"], optimisation__epochs=4)
    run(train_localizer)
    assert [epoch["switched"] for epoch in here().history()] == [0, 0, 1, 1]
    assert set(here().checkpoint()["task"]["switch"]) == set(RiseSwitch.STATE), "it keeps its state"
