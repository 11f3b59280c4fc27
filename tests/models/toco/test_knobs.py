"""ToCo in the whole configuration: knobs that contradict each other."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config.load import resolve
from pipeline.run.errors import UserError
from tests.support.knobs import shipped

WHOLE = r"needs a localizer.network that trains without a classifier and segments \(toco, dual_branch\)"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"localizer__network": "none"}, f"classifier.network = none, segmenter.network = localizer {WHOLE}"),
        ({"method": "cam", "segmenter__network": "localizer"}, f"segmenter.network = localizer {WHOLE}"),
        ({"method": "cam", "cams__rules": ["none", "aux"]}, "cams.rules = aux needs localizer.network = toco"),
        ({"cams__rules": ["transcam"]}, "read attention"),
        ({"localizer__toco__backbone": "resnet50"}, "localizer.toco.backbone = 'resnet50'.*allowed are vit_base"),
        ({"method": "amn", "localizer__amn__backbone": "vit_base"}, "amn.backbone = 'vit_base'.*allowed are effic"),
        ({"localizer__toco__crop": 160}, "leaves no room"),
        ({"localizer__toco__crop": 162}, "leaves no room"),
        ({"localizer__toco__crop": 158, "localizer__toco__crops": 5}, "leaves no room for localizer.toco.crops = 5"),
        ({"localizer__toco__low": 0.8}, "low is at most every high threshold"),
        ({"localizer__toco__compat": ["flips"]}, "localizer.toco.compat"),
        ({"method": "dual_branch", "localizer__dual_branch__gaussian": "bell"}, "localizer.dual_branch.gaussian"),
    ],
)
def test_wrong_knobs_are_named(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        resolve(shipped(**({"method": "toco"} | change)))
