"""The check of a device, in its small form on a CPU: rows, exact agreement of a CPU with itself, and its page."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from models import registry
from models.propagation.rules import rule_module, rule_names
from models.registry import NETWORKS
from pipeline.config.code import imported
from pipeline.config.load import resolve
from pipeline.config.presets import methods
from pipeline.run.errors import UserError
from pipeline.run.files import write_json
from tests.support import ROOT
from tools.gpu_check.agreement import FORMATS, agreement_rows, cases, descriptions
from tools.gpu_check.check import main
from tools.gpu_check.imports import NEEDED, OPTIONAL
from tools.gpu_check.measure import TimedMachine, measured, speed
from tools.gpu_check.presets import EPOCHS, STAGES, Settings, paper_knobs
from tools.gpu_check.results import JSON, MARKDOWN, Results

MACHINE = TimedMachine(Path(), torch.device("cpu"), workers=0)
FACTS = {"device": "cpu", "processes": 1, "torch": "2", "precision": "float32", "photographs": 64, "side": 500}


def check(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["gpu_check", *words])
    main()


# ------------------------------------------------------------------------------------------------------------- presets


@pytest.mark.slow
def test_presets_leave_whole_finite_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    methods = ("affinitynet", "transcam", "bao")
    check(monkeypatch, "--tiny", "--methods", *methods, "--cases", "par", "--out", "kept")
    content = json.loads((tmp_path / "kept" / JSON).read_text())
    rows: dict[tuple[str, str], dict[str, Any]] = {(row["method"], row["stage"]): row for row in content["presets"]}
    assert set(rows) == {
        ("all", "prepare_data"),
        *((name, stage) for name in methods for stage in STAGES),
    }
    assert not any("error" in row for row in rows.values())
    trainings = [
        row for row in rows.values() if row["stage"].startswith("train") and not row.keys() & {"idle", "same_as"}
    ]
    names = {(row["method"], row["stage"]) for row in trainings}
    assert names == {
        ("affinitynet", "train_classifier"),
        ("affinitynet", "train_affinity"),
        ("affinitynet", "train_segmenter"),
        ("transcam", "train_classifier"),
        ("bao", "train_localizer"),
        ("bao", "train_segmenter"),
    }
    for row in trainings:
        assert row["finite"] and len(row["weights"]) == 12
        assert row["steps"] == EPOCHS * 2 and row["step_ms"] > 0
        assert row["images_s"] == pytest.approx(2000 / row["step_ms"], rel=0.05)
    assert rows["affinitynet", "train_localizer"]["idle"]
    same = {"method": "transcam", "stage": "train_segmenter", "same_as": "affinitynet"}
    assert rows["transcam", "train_segmenter"] == same
    assert content["facts"]["seconds"] > 0 and content["facts"]["tiny"]
    table = (tmp_path / "kept" / MARKDOWN).read_text()
    assert table.count("| bao |") == 3 and "| par |" in table and "small networks" in table
    assert not (tmp_path / ".smoke/gpu_check/work").exists()


def test_presets_keep_published_crops_and_batches() -> None:
    """All variants too; nothing but length, weights and CRF differs from what the preset says."""
    for method in methods():
        published = resolve({"method": method, "profile": "paper", "data": {"name": "scenes"}})
        checked = resolve(paper_knobs(method, Settings()))
        for group in ("classifier", "localizer", "affinity", "segmenter"):
            one, other = getattr(published, group), getattr(checked, group)
            assert one.network == other.network and one.augmentation == other.augmentation
            assert one.optimisation.model_copy(update={"epochs": EPOCHS}) == other.optimisation
        assert checked.classifier.weights == checked.localizer.dual_branch.weights == "none"
        assert checked.cams == published.cams and checked.refine == published.refine
        assert checked.affinity.crf is checked.localizer.amn.crf is checked.predict.crf is None


def test_failed_work_is_a_row_and_other_work_goes_on() -> None:
    def fail() -> None:
        MACHINE.step_done()
        raise RuntimeError("no memory\nleft")

    row = measured(fail, MACHINE)
    assert row["error"] == "RuntimeError: no memory left" and row["seconds"] >= 0
    row = measured(MACHINE.step_done, MACHINE)
    assert row.keys() == {"seconds"} and len(MACHINE.ends) == 1, "the steps before are forgotten"


def test_operations_without_a_deterministic_form_are_named() -> None:
    def warn() -> None:
        for name in ("b_kernel", "a_kernel", "b_kernel"):
            warnings.warn(f"{name} does not have a deterministic implementation, but you set ...", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    assert measured(warn, MACHINE)["nondeterministic"] == ["a_kernel", "b_kernel"]


def test_speed_is_that_of_the_median_step() -> None:
    assert speed([1.0, 1.5, 2.0, 9.0], batch=8) == {"steps": 4, "step_ms": 500.0, "images_s": 16.0}
    assert speed([1.0], batch=8) == {}


# ----------------------------------------------------------------------------------------------------------- agreement


@pytest.mark.slow
def test_a_cpu_agrees_with_itself() -> None:
    names = ["conformer_tiny", "toco vit_test", "bao", "irn", "psa_walk", "irn_walk", "par"]
    rows = list(agreement_rows(names, True, torch.device("cpu")))
    assert [(row["case"], row["format"]) for row in rows] == [(name, word) for name in names for word in FORMATS]
    found = {(row["case"], row["format"]): row for row in rows}
    for name in names:
        for word in ("float32", "TF32"):
            assert found[name, word]["difference"] == 0 and found[name, word]["argmax"] == 1
        for word in ("bfloat16", "float16"):
            assert 0 <= found[name, word]["difference"] < 0.1 and found[name, word]["argmax"] > 0.9
    assert found["conformer_tiny", "bfloat16"]["difference"] > found["conformer_tiny", "float16"]["difference"] > 0


def test_every_network_of_the_registry_is_compared() -> None:
    for small in (False, True):
        described = [about["network"] for about in descriptions(small).values()]
        assert set(described) >= set(NETWORKS) - set(registry.SEGMENTERS)
    large = descriptions(False)
    assert set(large) >= {*registry.CLASSIFIERS, *registry.SEGMENTERS, *(f"toco {name}" for name in registry.ENCODERS)}
    assert set(cases(False)) == {*large, "psa_walk", "irn_walk", "par"}


def test_a_case_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "amn", "models.amn.network:Nothing")
    rows = list(agreement_rows(["amn", "par"], True, torch.device("cpu")))
    assert rows[0]["format"] == "all" and "Nothing" in rows[0]["error"]
    assert len(rows) == 1 + len(FORMATS) and "error" not in rows[-1]


# ----------------------------------------------------------------------------------------------------- results and page


def test_a_killed_run_leaves_its_rows(tmp_path: Path) -> None:
    results = Results(tmp_path, FACTS | {"tiny": False})
    results.add("presets", {"method": "cam", "stage": "extract_cams", "seconds": 2.04, "peak_gib": 1.5})
    results.add("agreement", {"case": "par", "format": "float32", "difference": None, "argmax": 0.5})
    table = (tmp_path / MARKDOWN).read_text()
    assert "| cam | extract_cams | 2.0 | 1.5 | - |" in table and "| par | not finite |" in table
    assert "ended before it was done" in table
    assert len(json.loads((tmp_path / JSON).read_text())["presets"]) == 1
    results.finish()
    table = (tmp_path / MARKDOWN).read_text()
    assert "ended before it was done" not in table and "The run took 0 s." in table


def test_page_takes_the_tables_of_a_run_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "scale.md"
    page.write_text((ROOT / "docs/scale.md").read_text())
    facts = FACTS | {"device": "Some GPU", "tiny": False, "seconds": 321}
    rows = [{"case": "par", "format": "TF32", "difference": 0.00012, "argmax": 1.0}]
    write_json(tmp_path / JSON, {"facts": facts, "agreement": rows, "presets": []})
    words = ["--out", str(tmp_path), "--page", str(page)]
    check(monkeypatch, *words)
    place = page.read_text().split("<!-- gpu-check -->")[1].split("<!-- end -->")[0]
    assert "Some GPU" in place and "took 321 s" in place and "| par | 1.2e-04, 100.00 % |" in place
    write_json(tmp_path / JSON, {"facts": facts | {"device": "cpu"}, "agreement": rows, "presets": []})
    with pytest.raises(UserError, match="of a CPU"):
        check(monkeypatch, *words)


def test_unknown_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no method is called camm"):
        check(monkeypatch, "--methods", "camm")


# ------------------------------------------------------------------------------------------------------------- imports


def test_what_is_needed_is_what_the_code_imports() -> None:
    places = [*NETWORKS.values(), *(trunk.at for trunk in (registry.BACKBONES | registry.ENCODERS).values())]
    modules = [place.split(":")[0] for place in places] + [method.task for method in registry.METHODS.values()]
    modules += [f"pipeline.{stage}" for stage in ("configure", "prepare_data", "data.sources.scenes", *STAGES)]
    modules += [rule_module(name) for name in rule_names()]
    found = {name for path in imported(modules) for name in roots(path)}
    own = {"models", "pipeline", *sys.stdlib_module_names}
    assert found - own - set(OPTIONAL) == set(NEEDED)


def roots(path: Path) -> set[str]:
    """First parts of the names of modules that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_missing_packages_are_named_at_once() -> None:
    command = [sys.executable, "-S", "-m", "tools.gpu_check"]  # -S: without installed packages
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and f"not installed here: {', '.join(NEEDED)}" in done.stderr
