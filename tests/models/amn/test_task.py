"""The training of AMN on static labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline import train_localizer
from tests.support.project import configure, write_network, write_photographs
from tests.support.stages import run
from tests.support.trainings import CLASSIFIER, here


def test_amn_learns_static_labels_of_a_plain_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path)
    plain = {"network": "cam_classifier", "backbone": "efficientnet_lite0", "classes": 2}
    write_network(CLASSIFIER, plain)
    configure(
        stages=["train_localizer"],
        method="amn",
        localizer__amn__confidence_pair=[0.5, 0.2],
        localizer__amn__weights="none",
        localizer__optimisation__epochs=2,
        localizer__optimisation__batch=2,
        localizer__augmentation__long_side=[48, 64],
        localizer__augmentation__crop=64,
        cams__long_side=64,
        cams__scales=[1.0],
    )
    run(train_localizer)
    maps, background, _ = here().network().activations(torch.zeros(1, 3, 64, 64), torch.ones(1, 2))
    assert maps.shape == (1, 2, 4, 4) and background is not None and background.shape == (1, 4, 4)
