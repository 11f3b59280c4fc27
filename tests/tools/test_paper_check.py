"""The check of the paper presets: small knobs, own networks, processes, and one method from start to end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.config.load import resolve
from pipeline.config.presets import methods
from pipeline.run.errors import UserError
from tools import paper_check
from tools.paper_check import STAGES, in_a_fork, last_line, places, small


@pytest.mark.parametrize("data", ["voc2012", "coco2014"])
@pytest.mark.parametrize("method", methods())
def test_presets_stay_what_they_are_but_for_sizes_and_weights(method: str, data: str) -> None:
    photographs = {"name": data, "root": "/photographs"}
    published = resolve({"method": method, "profile": "paper", "data": photographs})
    checked = resolve(small(method, photographs))
    for name in ("classifier", "localizer", "affinity", "segmenter"):
        assert getattr(checked, name).network == getattr(published, name).network
    assert checked.segmenter.loss == published.segmenter.loss
    assert (checked.predict.fusion, checked.predict.crf) == (published.predict.fusion, published.predict.crf)
    assert checked.refine.rule == published.refine.rule and checked.masks.crf == published.masks.crf
    assert checked.cams.rules == published.cams.rules and checked.bg_thresh == published.bg_thresh
    for group in (checked.classifier, checked.localizer, checked.affinity, checked.segmenter):
        assert group.optimisation.max_steps == 3 and group.augmentation.crop <= 64
    assert checked.classifier.weights == checked.segmenter.weights == "none"


def test_stages_are_all_that_dvc_runs_between_the_data_and_the_report() -> None:
    names = {stage.replace(" ", "@").split("@")[0] for stage in STAGES}
    dvc = {"train_classifier", "train_localizer", "extract_cams", "train_affinity", "refine_cams", "choose_background"}
    assert names == dvc | {"make_masks", "train_segmenter", "predict", "evaluate"}
    assert places("predict", "outs") == [
        Path(f"data/{name}") for name in ("predictions", "test_predictions", "predictor")
    ]
    assert Path("data/segmenter") in places("predict", "deps")


def test_processes_say_how_they_ended(tmp_path: Path) -> None:
    def fail() -> None:
        print("before")
        raise UserError("no\nphotographs")

    log = tmp_path / "log"
    ended = in_a_fork(fail, log)
    assert not ended.well and last_line(log) == "photographs"
    ended = in_a_fork(lambda: print("done"), log)
    assert ended.well and ended.gib > 0.01 and last_line(log) == "done"


@pytest.mark.slow
def test_one_method_from_start_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["paper_check", "cam", "supervised", "--data", "voc2012"])
    monkeypatch.setattr(paper_check.pool, "ProcessPoolExecutor", paper_check.pool.ProcessPoolExecutor)
    paper_check.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(STAGES) + 1 and not [line for line in lines if "FAILED" in line]
    shared = [line.split()[2] for line in lines if line.endswith("as cam")]
    assert {"train_classifier", "extract_cams", "train_segmenter"} <= set(shared)
    assert not (tmp_path / ".smoke").joinpath("paper_check").exists()


def test_unknown_method_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["paper_check", "camm"])
    with pytest.raises(UserError, match="no method is called camm"):
        paper_check.main()
