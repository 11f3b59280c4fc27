"""Knobs that contradict each other are refused before any work."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pipeline.config.load import resolve
from pipeline.run.errors import UserError
from tests.support.knobs import shipped


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"method": "bao", "localizer__optimisation__epochs": 5}, "below localizer.optimisation.epochs = 5"),
        ({"method": "adcam", "cams__rules": ["diffuse"]}, "cams.rules: no rule 'diffuse'; allowed are adcam, aux"),
        ({"method": "adcam", "cams__adcam": {"steps": "closed"}}, "cams.adcam: steps = closed needs mode = ppr"),
        ({"cams__rules": ["expansion"]}, "cams.rules = expansion needs localizer.network = esol"),
        ({"cams__rules": ["aux"]}, "cams.rules = aux needs localizer.network = toco or dual_branch"),
        ({"cams__rules": ["transcam"]}, "read attention, but classifier.network = efficientnet_lite0 has none"),
        (
            {"method": "amn", "classifier__network": "efficientnet_lite0_hybrid", "cams__rules": ["transcam"]},
            "cams.rules = transcam read attention, but the network that localizer.network = amn trains has none",
        ),
        ({"refine__rule": "irn_walk"}, "refine.rule = irn_walk needs affinity.network = irn, but it is none"),
        ({"cams__source": "import"}, "cams.source = import reads cams.folder, which is none"),
        ({"masks__source": "import"}, "masks.source = import reads masks.folder, which is none"),
        ({"cams__source": "none"}, "cams.source = none leaves no maps, but masks.source = maps reads some"),
        (
            {"method": "toco", "cams__source": "import", "cams__folder": "maps"},
            "segmenter.network = localizer needs a localizer.network that trains without a classifier",
        ),
        ({"method": "toco", "masks__source": "truth"}, "masks.source = truth needs a segmenter that learns from masks"),
        (
            {"method": "supervised", "data__name": "folder", "data__root": "photos"},
            "masks.source = truth learns from ground-truth masks, but data.folder.masks = none",
        ),
        ({"segmenter__optimisation__batch": 1}, "batch = 1 over processes = 1 and accumulate = 1 leaves each"),
        ({"processes": 8}, "batch = 8 over processes = 8 and accumulate = 1 leaves each fewer than two"),
        (
            {"segmenter__optimisation__accumulate": 8},
            "batch = 8 over processes = 1 and accumulate = 8 leaves each fewer than two photographs",
        ),
        (
            {"method": "transcam", "classifier__head_width": 512},
            "classifier.head_width = 512 needs a convolutional classifier",
        ),
        ({"classifier__network": "none"}, "classifier.network = none needs a localizer.network that trains"),
        ({"segmenter__network": "localizer"}, "segmenter.network = localizer needs a localizer.network that trains"),
        (
            {"method": "bao", "classifier__network": "resnet50"},
            "bao needs a classifier with attention, but",
        ),
        (
            {"method": "esol", "classifier__network": "conformer_tiny"},
            "esol needs a convolutional classifier, but",
        ),
    ],
)
def test_contradictions_are_named(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=re.escape(expected)):
        resolve(shipped(**change))
