"""The training of ToCo: thresholds that move, knobs, and what follows from its maps."""

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

from models.maps import min_max, resize
from models.task import Progress
from models.toco import task as toco
from models.toco.contrast import ContrastHeads
from models.toco.knobs import TocoKnobs
from models.toco.network import ToCoNetwork
from models.toco.task import TocoTask, tasks
from pipeline import extract_cams, predict, train_classifier, train_segmenter
from pipeline.data.dataset import resized_view
from pipeline.data.manifest import load_manifest
from pipeline.data.photographs import Photographs
from pipeline.maps.store import fused_maps, read_store
from pipeline.run.errors import UserError
from tests.support import project as shared
from tests.support.project import PHOTOGRAPHS, coarse, write_network, write_photographs
from tests.support.stages import run
from tests.support.starts import start
from tests.support.trainings import LOCALIZER, Trainings, here

SMALL: dict[str, Any] = {
    "localizer__optimisation__epochs": 2,
    "localizer__optimisation__batch": 2,
    "localizer__augmentation__long_side": [48, 72],
    "localizer__augmentation__crop": 64,
    "localizer__toco__backbone": "vit_test",
    "localizer__toco__weights": "none",
    "localizer__toco__decoder_width": 8,
    "localizer__toco__high": [0.7, 0.55],
    "localizer__toco__mask_start": 0.0,
    "cams__long_side": 64,
    "cams__scales": [1.0, 0.5],
    "predict__long_side": 64,
    "predict__scales": [1.0],
}


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    """On six photographs, one without a class, one of one colour; with small heads of class token contrast."""
    folder = tmp_path_factory.mktemp("toco")
    write_photographs(folder, paint=coarse)
    with chdir(folder):
        configure("train_classifier")
        run(train_classifier)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toco, "ContrastHeads", partial(ContrastHeads, outputs=32, hidden=24))
        yield Trainings(folder, tmp_path_factory.mktemp("trained"), configure)


def configure(*stages: str, **knobs: Any) -> None:
    """What train_localizer, or other stages, are told: the shipped configuration, small."""
    shared.configure(stages=stages or ["train_localizer"], method="toco", **(SMALL | knobs))


def task_of(knobs: TocoKnobs, classes: int = 2) -> TocoTask:
    """The task, on the smallest transformer."""
    small = knobs.model_copy(update={"backbone": "vit_test", "decoder_width": 8})
    with torch.device("meta"):
        (task,) = tasks(start({"toco": small.model_dump()}, epochs=10, classes=classes))
    assert isinstance(task, TocoTask)
    return task


def test_thresholds_and_weights_follow_the_share_done() -> None:
    knobs, tags = TocoKnobs(high=[0.7, 0.55]), torch.zeros(2, 20)
    task = task_of(knobs, classes=20)
    assert task.weights()["masks"] == 0 and task.thresholds(tags).pairs == 0.7
    assert sum(value > 0 for value in task.weights().values()) == 4
    task.after_step(Progress(epoch=4, step=99, steps=100, total=1000))
    assert task.done == 0.5
    assert task.weights()["masks"] == 0.1
    assert task.thresholds(tags) == (0.25, *(pytest.approx(0.625),) * 3, "final")
    other = task_of(knobs.model_copy(update={"high_moves": ["masks"]}), classes=20)
    other.load_state_dict(task.state_dict())
    assert other.thresholds(tags) == (0.25, 0.7, 0.7, pytest.approx(0.625), "final")


def test_the_earlier_block_labels_masks_first() -> None:
    task, tags = task_of(TocoKnobs(final_labels_start=0.5)), torch.eye(2)
    assert task.thresholds(tags).labelled_by == "aux"
    task.load_state_dict({"done": 0.5})
    assert task.thresholds(tags).labelled_by == "final"


def test_last_thresholds_of_each_class() -> None:
    task = task_of(TocoKnobs(high_of_classes=[0.7, 0.55]))
    task.load_state_dict({"done": 1.0})
    torch.testing.assert_close(task.thresholds(torch.eye(2)).masks, torch.tensor([0.7, 0.55]))
    with pytest.raises(ValueError, match="3 thresholds for 2 classes"):
        task_of(TocoKnobs(high_of_classes=[0.7] * 3))


@pytest.mark.parametrize(
    "change",
    [
        {"compat": ["absolute_pairs", "extra_term", "pixel_boxes", "flip_bug"]},
        {"high_moves": []},
        {"final_labels_start": 1.0},
        {"ctc_weight": 0.0},
        {"ptc_weight": 0.0},
        {"crop": 16},
    ],
    ids=lambda change: next(iter(change)),
)
def test_knobs_change_the_result(trainings: Trainings, change: dict[str, Any]) -> None:
    other = trainings(**{f"localizer__toco__{knob}": value for knob, value in change.items()})
    assert trainings().losses() != other.losses()


def test_stored_maps_are_fused_as_in_training(
    trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the order of resizing and of taking the larger of both mirror images' values."""
    shutil.copytree(trainings().folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    configure("extract_cams", cams__square=True, cams__rules=["none"])
    run(extract_cams)
    network, manifest = here().network(), load_manifest().split("train")
    assert isinstance(network, ToCoNetwork)
    photographs = Photographs(manifest, Path(PHOTOGRAPHS))
    pairs = zip(read_store(Path("data/seeds")), manifest.records, strict=True)
    entries = [(entry, record) for entry, record in pairs if entry.class_ids]
    assert len(entries) == 5
    for entry, record in entries:
        total = torch.zeros(1, 1, 64, 64)
        for side in (64, 32):
            view = resized_view(photographs.read(record), (side, side), (network.mean, network.std))
            with torch.no_grad():
                both = network.stacked_cams(torch.stack([view, view.flip(2)]))[:, [entry.class_ids[0] - 1]]
            total += resize(torch.maximum(both[:1], both[1:].flip(3)).relu(), (64, 64))
        ours, _ = fused_maps(entry, (64, 64))
        np.testing.assert_allclose(ours, min_max(total)[0].numpy(), atol=5e-3)


def test_a_localizer_without_decoder_does_not_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path, val=1)
    write_network(LOCALIZER, {"network": "cam_classifier", "backbone": "efficientnet_lite0", "classes": 2})
    configure("train_segmenter", "predict")
    run(train_segmenter)
    with pytest.raises(UserError, match="a localizer that segments, but cam_classifier does not"):
        run(predict)
