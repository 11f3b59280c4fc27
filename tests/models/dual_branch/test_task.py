"""The training of the dual branch: awkward photographs, exact continuation, optimisers, knobs, what follows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.dual_branch import task as dual_branch
from models.dual_branch.task import DualBranchTask, tasks
from models.task import Progress
from models.toco import task as toco
from models.toco.contrast import ContrastHeads
from pipeline import extract_cams, predict, refine_cams, train_classifier, train_localizer, train_segmenter
from pipeline.config.load import resolve
from pipeline.data.masks import read_mask
from pipeline.data.three_views import ThreeViews
from pipeline.maps.store import fused_maps, read_store
from pipeline.run.errors import UserError
from pipeline.run.files import read_json, sha256
from tests.support import project as shared
from tests.support.knobs import shipped
from tests.support.project import Pixels, coarse, write_photographs
from tests.support.stages import run
from tests.support.starts import start
from tests.support.trainings import LOCALIZER, WEIGHTS, Trained, Trainings, continued_equals_whole, here

SMALL: dict[str, Any] = {
    "method": "dual_branch",
    "localizer__optimisation__epochs": 2,
    "localizer__optimisation__batch": 2,
    "localizer__augmentation__long_side": [48, 72],
    "localizer__augmentation__crop": 64,
    "localizer__toco__backbone": "lite0_early_vit",
    "localizer__toco__weights": "none",
    "localizer__toco__decoder_width": 8,
    "localizer__toco__mask_start": 0.0,
    "localizer__dual_branch__weights": "none",
    "cams__long_side": 64,
    "cams__scales": [1.0, 0.5],
    "refine__long_side": 48,
    "predict__long_side": 64,
    "predict__scales": [1.0],
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Six photographs for training: one without a class, one of one colour; two for validation."""
    folder = tmp_path_factory.mktemp("dual-branch")
    write_photographs(folder, (*shared.TAGS, ("a",), ("b",)), val=2, paint=coarse)
    with chdir(folder):
        configure("train_classifier")
        run(train_classifier)
    with pytest.MonkeyPatch.context() as patch:
        for method in (toco, dual_branch):
            patch.setattr(method, "ContrastHeads", partial(ContrastHeads, outputs=32, hidden=24))
        yield folder


@pytest.fixture(scope="module")
def trainings(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    return Trainings(prepared, tmp_path_factory.mktemp("trained"), configure)


@pytest.fixture
def project(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the photographs, as the current folder."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configure(*stages: str, **knobs: Any) -> None:
    """What train_localizer, or other stages, are told: the shipped configuration, small."""
    shared.configure(stages=stages or ["train_localizer"], **(SMALL | knobs))


def trained(**knobs: Any) -> Trained:
    """A training in the current folder."""
    configure(**knobs)
    run(train_localizer)
    return here()


# ----------------------------------------------------------------------------------------------------------- training


def awkward(sample: Any) -> Any:
    """Of every six photographs one without any object, one that is all padding, and one without tags."""

    def changed(self: ThreeViews, index: int, rng: np.random.Generator) -> dict[str, Any]:
        found: dict[str, Any] = sample(self, index, rng)
        if index == 0:
            found |= {name: torch.zeros_like(found[name]) for name in ("image", "local", "second")}
        elif index == 1:
            found["boxes"] = torch.zeros_like(found["boxes"])
        elif index == 3:
            found["tags"] = torch.zeros_like(found["tags"])
        return found

    return changed


@pytest.mark.parametrize("batch", [1, 2])
def test_twenty_steps_on_awkward_photographs(project: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(ThreeViews, "sample", awkward(ThreeViews.sample))
    epochs = 4 if batch == 1 else 7
    found = trained(
        localizer__optimisation__epochs=epochs,
        localizer__optimisation__batch=batch,
        localizer__toco__mask_start="preset",
    )
    history = found.history()
    assert len(history) * 6 // batch >= 20
    assert all(np.isfinite(value) for row in history for value in row.values())
    assert history[-1]["masks"] > 0
    state = found.checkpoint()["network"]
    assert all(bool(value.isfinite().all()) for value in state.values() if value.is_floating_point())


def plain(number: int, size: tuple[int, int], rng: np.random.Generator) -> Pixels:
    """A picture of one colour, which its class has."""
    colour = (128, 128, 128) if number == 2 else ((230, 30, 30), (30, 30, 230))[number % 2]
    return np.full((*size, 3), colour, dtype=np.uint8)


def test_losses_fall_where_colours_tell_the_classes(project: Path) -> None:
    write_photographs(project, paint=plain)
    history = trained(
        localizer__optimisation__epochs=8,
        localizer__toco__mask_start="preset",
        localizer__dual_branch__rates__head_lr_factor=1.0,
        localizer__augmentation__colour_jitter=0.0,
    ).history()
    for name in ("tags", "aux_tags", "branch_tags"):
        assert history[-1][name] < history[0][name], name


def test_killed_training_continues_to_the_same_bytes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(localizer__optimisation__epochs=3, localizer__toco__mask_start=0.5)
    saved = continued_equals_whole(monkeypatch, [LOCALIZER / WEIGHTS], lambda names: len(names) == 2)
    assert len(saved) == 3, "no epoch is trained twice"


def test_each_branch_has_an_optimiser_of_its_own(trainings: Trainings) -> None:
    found = trainings(localizer__optimisation__lr=0.0005, localizer__dual_branch__rates__lr=0.004)
    main, branch = found.checkpoint()["optimisers"]
    assert [group["base_lr"] for group in main["param_groups"]] == [0.0005, pytest.approx(0.005)]
    assert [group["base_lr"] for group in branch["param_groups"]] == [0.004, 0.04]
    assert "betas" in main["param_groups"][0] and "momentum" in branch["param_groups"][0]
    learning = sum(parameter.requires_grad for parameter in compact_task().network.parameters())
    assert learning == sum(len(group["params"]) for one in (main, branch) for group in one["param_groups"])
    assert not any(name.startswith("branch") for name in found.weights())


def compact_task(profile: str = "compact", classes: int = 2) -> DualBranchTask:
    """The task of a profile's preset, without weights."""
    params = resolve(shipped(method="dual_branch", profile=profile)).localizer
    groups = {name: group.model_dump() for name, group in params.groups().items()}
    groups["toco"] |= {"decoder_width": 8}
    with torch.device("meta"):
        (task,) = tasks(start(groups, epochs=10, classes=classes))
    assert isinstance(task, DualBranchTask)
    return task


def test_thresholds_and_weights_follow_the_share_done() -> None:
    task, tags = compact_task("paper", classes=20), torch.zeros(2, 20)
    assert task.weights()["masks"] == 0 and task.thresholds(tags).pairs == 0.7
    assert sum(value > 0 for value in task.weights().values()) == 7
    task.after_step(Progress(epoch=4, step=99, steps=100, total=1000))
    assert task.done == 0.5
    assert task.weights()["masks"] == 0.1
    assert task.thresholds(tags) == (0.25, *(pytest.approx(0.625),) * 3, "final")


@pytest.mark.parametrize(
    "change",
    [
        {"localizer__dual_branch__combine": "parallel"},
        {"localizer__dual_branch__gaussian": "pdf"},
        {"localizer__dual_branch__consistency_norm": 2},
        {"localizer__dual_branch__stop_gradient": "transformer"},
        {"method": "toco"},
    ],
    ids=lambda change: next(iter(change)).split("__")[-1],
)
def test_knobs_change_the_result(trainings: Trainings, change: dict[str, Any]) -> None:
    assert trainings().losses() != trainings(**change).losses()


def test_branches_that_do_not_go_together(project: Path) -> None:
    with pytest.raises(UserError, match="do not go together"):
        trained(localizer__dual_branch__backbone="resnet50")


# ------------------------------------------------------------------------------------------------- stages that follow


def test_the_whole_chain(trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(trainings().folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    configure("extract_cams", "refine_cams", "train_segmenter", "predict")
    assert read_json(Path("metrics/details/classifier.json"), "")["classes_scored"] == 0
    assert read_json(LOCALIZER / "network.json", "")["network"] == "toco"
    assert not any(name.startswith(("branch", "contrast")) for name in here().weights())
    run(extract_cams)
    final, aux = (list(read_store(Path(f"data/rules/{rule}"))) for rule in ("none", "aux"))
    assert all(entry.fusion == "toco" for entry in (*final, *aux))
    assert not torch.equal(final[0].maps[0], aux[0].maps[0])
    run(refine_cams)
    for seed, refined in zip(final, read_store(Path("data/refined")), strict=True):
        maps, background = fused_maps(refined, refined.size)
        assert refined.id == seed.id and refined.class_ids == seed.class_ids and background is None
        assert maps.shape[0] == len(seed.class_ids) and maps.min(initial=0) >= 0 and maps.max(initial=0) <= 1
    run(train_segmenter)
    run(predict)
    assert sha256(Path("data/segmenter") / WEIGHTS) == sha256(LOCALIZER / WEIGHTS)
    predicted = sorted(path.name for path in Path("data/predictions").glob("*.png"))
    assert predicted == ["6.png", "7.png"]
    assert read_mask(Path("data/predictions/6.png"), (40, 56)).max() <= 2
