"""A study: one named experiment for each run, metrics and details kept, what is kept not run again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.run.errors import UserError
from pipeline.scoring.counts import load_counts
from tests.support import ROOT
from tools.kept import SECONDS
from tools.smoke import commit, run
from tools.study import experiment_name, main

PIPELINE = """
stages:
  train_classifier:
    cmd: python write.py classifier
    params: [method, seed, classes]
    plots:
    - metrics/classifier.json: {cache: false}
    - metrics/details/classifier.json: {cache: false}
  evaluate:
    foreach: {localizer: details/localizer, rules: details/rules, seeds: seeds, refined: refined}
    do:
      cmd: python write.py ${key}
      deps: [metrics/classifier.json]
      params: [method, seed, classes, data]
      outs: ["data/counts/${key}.npz"]
      plots:
      - metrics/${item}.json: {cache: false}
      - metrics/details/${key}.json: {cache: false}
"""
SCRIPT = """
import pathlib, sys, yaml
import numpy as np
sys.path.insert(0, {root!r})
from pipeline.run.files import write_json
from pipeline.scoring.counts import COUNTS, Counts, counts_path, save_counts
from pipeline.scoring.records import details_path, write_scores
name, knobs, metrics = sys.argv[1], yaml.safe_load(open("params.yaml")), pathlib.Path("metrics")
if knobs["seed"] == 13:
    sys.exit("no luck")
if name in ("localizer", "rules"):
    write_json(details_path(metrics, name), {{"protocol": knobs}})
else:
    write_scores(metrics, name, {{"miou": knobs["seed"] / 10, "protocol": knobs}})
if name != "classifier":
    save_counts(counts_path(COUNTS, name), Counts([f"of seed {{knobs['seed']}}"], [np.zeros((0, 3), dtype=np.int64)]))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose stages write scores out of params.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    Path("dvc.yaml").write_text(PIPELINE)
    Path("write.py").write_text(SCRIPT.format(root=str(ROOT)))
    Path("params.yaml").write_text("method: cam\nseed: 0\nclasses: [a]\ndata: {scenes: {seed: 0}}\n")
    run("git", "init", "-q", "-b", "main", cwd=tmp_path)
    run("git", "config", "user.name", "study", cwd=tmp_path)
    run("git", "config", "user.email", "study@localhost", cwd=tmp_path)
    run("dvc", "init", "-q", cwd=tmp_path)
    commit(tmp_path, "project")
    return tmp_path


def study(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["study", "x", "--until", "seeds", *words])
    main()


def kept(name: str) -> dict[str, dict[str, object]]:
    """What is kept of a run, by file."""
    folder = Path("metrics/studies/x") / name
    files = [path for path in sorted(folder.rglob("*.json")) if path.name != SECONDS]
    return {str(path.relative_to(folder)): json.loads(path.read_text()) for path in files}


@pytest.mark.slow
def test_runs_are_kept_once_each_with_its_own_scores(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study(monkeypatch, "--methods", "cam", "irn", "--seeds", "0")
    protocol = {"method": "cam", "seed": 0, "classes": ["a"], "data": {"scenes": {"seed": 0}}}
    counted, files = {"miou": 0.0}, kept("cam-seed0")
    assert {name for name in files if "/" not in name} == {"classifier.json", "seeds.json"}
    assert all(files[name] == counted for name in ("classifier.json", "seeds.json"))
    details = [f"details/{name}.json" for name in ("classifier", "localizer", "rules", "seeds")]
    assert [name for name in files if "/" in name] == details
    assert all(files[name] == {"protocol": protocol} for name in details)
    assert kept("irn-seed0")["details/seeds.json"] == {"protocol": protocol | {"method": "irn"}}
    assert load_counts(Path("metrics/studies/x/irn-seed0/counts/seeds.npz")).ids == ["of seed 0"]
    assert not Path("metrics/seeds.json").exists() and not Path("data").exists(), "the workspace is left alone"

    ran = {
        name: json.loads(Path("metrics/studies/x", name, SECONDS).read_text()) for name in ("cam-seed0", "irn-seed0")
    }
    scored = {"evaluate@localizer", "evaluate@rules", "evaluate@seeds"}
    assert all(run["stages"].keys() == {"train_classifier"} | scored and run["cores"] >= 1 for run in ran.values())
    assert all(second > 0 for run in ran.values() for second in run["stages"].values())

    # Killed after the experiment and before its scores were kept; and a knob that no ref could be named after.
    shutil.rmtree("metrics/studies/x/cam-seed0")
    (project / "metrics/studies/x/irn-seed0/seeds.json").write_text("{}")
    study(monkeypatch, "--methods", "cam", "irn", "--seeds", "0")
    assert kept("cam-seed0") == files
    assert kept("irn-seed0")["seeds.json"] == {}, "what is kept is not run again"
    study(monkeypatch, "--seeds", "1", "--set", "classes=[a,b]")
    found = kept("cam-classes-[a,b]-seed1")["details/rules.json"]
    assert found == {"protocol": protocol | {"seed": 1, "classes": ["a", "b"]}}
    names = subprocess.run(["dvc", "exp", "list", "--name-only"], capture_output=True, text=True, check=True).stdout
    assert sorted(names.split()) == ["x-cam-classes-a-b-seed1", "x-cam-seed0", "x-irn-seed0"]


def test_drawings_and_seeds_go_through_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: dict[str, Sequence[str]] = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tools.study.run_experiment", lambda name, knobs, _: (ran.setdefault(name, knobs), {}))
    monkeypatch.setattr("tools.study.keep_metrics", lambda commit, folder, names, seconds: folder.mkdir(parents=True))
    study(monkeypatch, "--seeds", "0", "1", "--drawings", "0", "2")
    assert list(ran) == ["x-cam-seed0", "x-cam-seed1", "x-cam-seed0-drawing2", "x-cam-seed1-drawing2"]
    assert ran["x-cam-seed1-drawing2"] == ["method=cam", "seed=1", "data.scenes.seed=2"]
    assert "data.scenes.seed=0" in ran["x-cam-seed0"]
    study(monkeypatch, "--seeds", "2")
    assert ran["x-cam-seed2"] == ["method=cam", "seed=2"], "photographs have no drawing"


@pytest.mark.usefixtures("project")
def test_values_that_an_experiment_left_in_params_are_not_studied(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("method: cam", "method: irn"))
    with pytest.raises(UserError, match=r"params.yaml has changes that are in no commit"):
        study(monkeypatch, "--seeds", "0")
    assert not Path("metrics/studies/x").exists()


@pytest.mark.slow
def test_failed_experiments_keep_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="method=cam seed=13 failed"):
        study(monkeypatch, "--seeds", "13")
    assert not Path("metrics/studies/x").exists()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("scenes-cam-seed0", "scenes-cam-seed0"),
        ('x-adcam-cams.rules-[adcam,"adcam:gamma=0"]-seed1', "x-adcam-cams-rules-adcam-adcam-gamma-0-seed1"),
        ("..a.lock~^", "a-lock"),
    ],
)
def test_names_of_experiments_are_names_of_refs(text: str, name: str) -> None:
    assert experiment_name(text) == name
    subprocess.run(["git", "check-ref-format", f"refs/exps/ab/cd/{name}"], check=True)
