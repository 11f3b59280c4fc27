"""From which labels tokens take: by hand, and on a finished working copy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.build import classifier_description
from pipeline.data.manifest import load_manifest
from pipeline.run.errors import UserError
from tests.support.project import PHOTOGRAPHS, configure, write_masks, write_network, write_photographs
from tools import intake


def test_share_by_hand() -> None:
    weights = torch.tensor([[9.0, 1, 2, 1], [3, 9, 1, 4], [1, 1, 9, 1], [1, 1, 1, 9]])
    labels = torch.tensor([1, 1, 0, 255])
    assert intake.own_share(weights, labels) == pytest.approx((1 / 3 + 3 / 4) / 2), "void and itself do not count"


def test_care_is_told_for_every_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_photographs(Path(), [("a",), ("b",), ("a",)], [(64, 96)])
    write_masks(Path(), load_manifest(), lambda number, record: np.full(record.size, number % 2, np.uint8))
    configure(method="adcam", data__name="folder", data__root=PHOTOGRAPHS)
    write_network(Path("data/localizer"), classifier_description("efficientnet_lite0_hybrid", 2, 0.0))
    monkeypatch.setattr("sys.argv", ["intake", str(tmp_path)])
    intake.main()
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| adcam")]
    assert [line[0].removeprefix("| ") for line in lines] == list(intake.RULES)
    assert [line[1:3] for line in lines] == [["1", "100.0"]] * len(lines), (
        "the one mask with a class shows nothing but it"
    )
    counts = [float(line[3].removesuffix(" |")) for line in lines]
    assert counts[0] >= counts[1] >= counts[2] >= 1
    with pytest.raises(UserError, match="transcam is no entry of adcam"):
        intake.intakes(["transcam"], 1)


def test_several_trainings_have_a_spread() -> None:
    trainings = [{"adcam": (0.5, 10.0)}, {"adcam": (0.7, 30.0)}]
    assert intake.intake_table(trainings).splitlines()[2] == "| adcam | 2 | 60.0 ± 14.1 | 20.0 ± 14.1 |"


def test_networks_without_attention_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_network(Path("data/localizer"), classifier_description("efficientnet_lite0", 2, 0.0))
    with pytest.raises(UserError, match="the network has no attention"):
        intake.intakes(intake.RULES, 1)
