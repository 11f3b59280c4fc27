"""ESOL in the whole configuration: its presets, and knobs that contradict each other."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config.load import resolve
from pipeline.config.stages import stage_configs
from pipeline.run.errors import UserError
from tests.support.knobs import shipped


def test_presets_load() -> None:
    compact, paper = (resolve(shipped(method="esol", profile=profile)) for profile in ("compact", "paper"))
    assert (compact.localizer.esol.reach, paper.localizer.esol.reach) == (0.5, 2.0)
    assert (compact.classifier.network, paper.classifier.network) == ("efficientnet_lite0", "resnet50")
    assert compact.cams.rules == ["none", "expansion", "baseline"] and compact.refine.rule == "irn_walk"
    other = resolve(shipped(method="esol_affinitynet"))
    assert other.refine.rule == "psa_walk" and other.localizer == compact.localizer
    cam, esol = (stage_configs(resolve(shipped(method=method))) for method in ("cam", "esol"))
    assert cam["train_classifier"] == esol["train_classifier"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"cams__rules": ["none", "aux"]}, "cams.rules = aux needs localizer.network = toco or dual_branch"),
        ({"method": "cam", "cams__rules": ["none", "baseline"]}, "baseline needs localizer.network = esol"),
        ({"classifier__network": "efficientnet_lite0_hybrid"}, "esol needs a convolutional classifier"),
        ({"localizer__esol__clip_level": 1.5}, "takes a clip_level of at most 1"),
        ({"localizer__esol__reach": 0}, "localizer.esol.reach = 0"),
        ({"localizer__esol__ceiling": 0.0}, "localizer.esol.ceiling"),
        ({"localizer__esol__area_weight": -1}, "localizer.esol.area_weight"),
        ({"localizer__esol__clip": "median"}, "localizer.esol.clip"),
    ],
)
def test_wrong_knobs_are_named(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        resolve(shipped(**({"method": "esol"} | change)))


def test_a_constant_bound_may_exceed_one() -> None:
    assert resolve(shipped(method="esol", localizer__esol__clip="const", localizer__esol__clip_level=6.0))
