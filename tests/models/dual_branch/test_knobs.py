"""The dual branch in the whole configuration: the rows of the paper's tables, and weights that cannot be had."""

from __future__ import annotations

import pytest

from models.registry import VIT_TAG
from pipeline.config.load import resolve
from pipeline.config.presets import methods
from pipeline.configure import check_weights
from pipeline.run.errors import UserError
from pipeline.training import imagenet
from tests.support.knobs import shipped

ROWS = {
    "plain": (0.7, False, False, "serial", 1),
    "threshold": (0.55, False, False, "serial", 1),
    "channel": (0.7, True, False, "serial", 1),
    "spatial": (0.7, False, True, "serial", 1),
    "gates": (0.7, True, True, "serial", 1),
    "threshold_channel": (0.55, True, False, "serial", 1),
    "threshold_spatial": (0.55, False, True, "serial", 1),
    "l2": (0.55, True, True, "serial", 2),
    "end_065": (0.65, True, True, "serial", 1),
    "end_060": (0.6, True, True, "serial", 1),
    "end_050": (0.5, True, True, "serial", 1),
    "parallel": (0.55, True, True, "parallel", 1),
}
"""Last threshold, gates, how they join, and norm of the consistency."""


def test_presets_of_the_tables_differ_where_the_tables_do() -> None:
    found = {}
    rows = [name for name in methods() if name.startswith("dual_branch_") and not name.endswith("second_stage")]
    for name in (name.removeprefix("dual_branch_") for name in rows):
        localizer = resolve(shipped(method=f"dual_branch_{name}", profile="paper")).localizer
        branch = localizer.dual_branch
        assert localizer.network == "dual_branch" and branch.backbone == "resnet50"
        ends = localizer.toco.high[1]
        found[name] = (ends, branch.channel, branch.spatial, branch.combine, branch.consistency_norm)
    assert found == ROWS
    best, alone = (resolve(shipped(method=method, profile="paper")).localizer for method in ("dual_branch", "toco"))
    assert (best.toco.high, best.network, best.dual_branch.backbone) == ([0.7, 0.55], "dual_branch", "resnet50")
    assert (alone.toco.high, alone.network) == ([0.7, 0.7], "toco")
    assert alone.optimisation.lr == best.optimisation.lr == 6e-5


def test_weights_that_cannot_be_had_stop_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = {"localizer__toco__weights": "lost.pth", "localizer__dual_branch__weights": "gone.pth"}
    both = r"localizer.toco.weights = lost.pth(.|\n)*localizer.dual_branch.weights = gone.pth"
    with pytest.raises(UserError, match=both):
        check_weights(resolve(shipped(method="dual_branch", **lost)))
    fetched: list[tuple[str, str]] = []
    monkeypatch.setattr(imagenet, "fetch_imagenet", lambda *asked: fetched.append(asked))
    check_weights(resolve(shipped(method="dual_branch", profile="paper")))
    assert fetched == [("vit_base", f"timm:{VIT_TAG}"), ("resnet50", "timm:resnet50.tv_in1k")]
