"""Stage configure: it writes what each stage is told, and refuses what cannot be had before any work."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline import configure
from pipeline.config.load import resolve
from pipeline.config.stages import stage_configs
from pipeline.configure import check_weights
from pipeline.run.errors import UserError
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


def test_every_stage_gets_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(SHIPPED, "params.yaml")
    configure.main()
    written = {path.stem: json.loads(path.read_text()) for path in Path("data/config").iterdir()}
    Runtime.model_validate(written.pop("runtime"))
    assert written == json.loads(json.dumps(stage_configs(resolve(shipped()))))
    for stage, told in written.items():
        config_class(stage).model_validate(told)
