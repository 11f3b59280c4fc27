"""Stage configure: it writes what each stage is told, and refuses what cannot be had before any work."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from models.build import trunk
from pipeline import configure
from pipeline.config.load import resolve
from pipeline.config.stages import code_records, runtime, stage_configs
from pipeline.configure import check_weights
from pipeline.data.sources.source import PrepareDataConfig, data_root
from pipeline.run.errors import UserError
from pipeline.run.files import expanded
from pipeline.run.told import Runtime
from tests.support.knobs import SHIPPED, shipped
from tests.support.stages import config_class


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"method": "transcam", "profile": "paper"}, "classifier.weights = imagenet: no library carries those of conf"),
        ({"method": "affinitynet", "profile": "paper"}, "affinity.weights = imagenet: no library carries those of res"),
        ({"method": "amn", "localizer__amn__weights": "lost.pth"}, "localizer.amn.weights = lost.pth: no such file"),
        ({"method": "cam", "profile": "paper"}, "segmenter.weights = imagenet: no library carries those of deeplabv2"),
        ({"method": "esol", "profile": "paper"}, "segmenter.weights = coco: no library carries those of deeplabv2_res"),
        ({"segmenter__weights": "lost.pth"}, "segmenter.weights = lost.pth: no such file"),
    ],
)
def test_weights_that_cannot_be_had_stop_before_any_work(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=re.escape(expected)):
        check_weights(resolve(shipped(**change)))
    check_weights(resolve(shipped()))


def test_weights_of_groups_that_are_not_read_are_not_looked_for() -> None:
    check_weights(resolve(shipped(method="cam", localizer__toco__weights="lost.pth", affinity__weights="lost.pth")))


def weights_file(path: Path, backbone: str = "efficientnet_lite0", change: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.save({name: value + change for name, value in trunk(backbone).state_dict().items()}, path)
    return path


def test_files_of_another_network_and_damaged_ones_stop_before_any_work(tmp_path: Path) -> None:
    """The segmenter's, which is trained last, too."""
    check_weights(resolve(shipped(classifier__weights=str(weights_file(tmp_path / "lite0.pth")))))
    other = str(weights_file(tmp_path / "lite2.pth", "efficientnet_lite2"))
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"nothing")
    with pytest.raises(UserError) as caught:
        check_weights(resolve(shipped(classifier__weights=str(damaged), segmenter__weights=other)))
    first, second = str(caught.value).splitlines()[1:]
    assert f"{damaged} cannot be read as plain tensors: it is no file of PyTorch or safetensors, or is damaged" in first
    assert f"segmenter.weights = {other}" in second and "does not fit the model" in second


def test_home_folders_are_expanded_and_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    weights_file(tmp_path / "weights/lite0.pth")
    params = resolve(
        shipped(classifier__weights="~/weights/lite0.pth", data__name="folder", data__root="~/photographs")
    )
    check_weights(params)
    told = stage_configs(params)
    assert told["train_classifier"]["weights_sha256"].keys() == {"~/weights/lite0.pth"}
    assert str(tmp_path) not in json.dumps(told)
    assert runtime(params).folder == tmp_path / "photographs" == data_root(prepare_config(told["prepare_data"]))
    assert expanded("~nobody-has-this-name/x") == Path("~nobody-has-this-name/x")


def prepare_config(told: dict[str, Any]) -> PrepareDataConfig:
    return PrepareDataConfig.model_validate(told)


@pytest.mark.parametrize(
    ("stage", "knobs"),
    [
        ("train_classifier", {"classifier__weights": "w.pth"}),
        ("train_segmenter", {"segmenter__weights": "w.pth"}),
        ("train_affinity", {"method": "irn", "affinity__weights": "w.pth"}),
        ("train_localizer", {"method": "amn", "localizer__amn__weights": "w.pth"}),
    ],
)
def test_another_file_under_the_same_path_is_another_training(
    stage: str, knobs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = []
    for change in (0.0, 0.0, 1.0):
        weights_file(Path("w.pth"), change=change)
        told.append(stage_configs(resolve(shipped(**knobs))))
    assert told[0] == told[1]
    assert [name for name in told[0] if told[0][name] != told[2][name]] == [stage]
    config_class(stage).model_validate(told[0][stage])
    assert "weights_sha256" not in stage_configs(resolve(shipped()))[stage]


def test_every_stage_gets_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(SHIPPED, "params.yaml")
    configure.main()
    written = {path.stem: json.loads(path.read_text()) for path in Path("data/config").iterdir()}
    Runtime.model_validate(written.pop("runtime"))
    assert written.pop("code") == json.loads(json.dumps(code_records(resolve(shipped()))))
    assert written == json.loads(json.dumps(stage_configs(resolve(shipped()))))
    for stage, told in written.items():
        config_class(stage).model_validate(told)
