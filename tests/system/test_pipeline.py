"""The whole pipeline, really run: through DVC on a dozen scenes, without masks, killed, on a folder of photographs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import chdir
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from pipeline import configure
from pipeline.run.files import sha256
from pipeline.scoring.artefacts import ARTEFACTS
from pipeline.scoring.counts import load_counts
from pipeline.scoring.records import read_scores
from tests.support import stages
from tests.support.knobs import set_knobs
from tests.support.processes import forked
from tools import study
from tools.compare import study_runs, study_table
from tools.kept import SECONDS
from tools.smoke import commit, copy_repository, run

pytestmark = pytest.mark.slow

AFTER_PREPARE = (
    "train_classifier",
    "train_localizer",
    "extract_cams",
    "train_affinity",
    "refine_cams",
    "choose_background",
    "make_masks",
    "train_segmenter",
    "predict",
)
LIGHT = ("prepare_data", "choose_background", "make_masks", "evaluate", "report")
SMALL = {
    "method": "irn",
    "data.scenes.train": 8,
    "data.scenes.val": 4,
    "classifier.optimisation.epochs": 2,
    "affinity.optimisation.epochs": 1,
    "segmenter.optimisation.epochs": 1,
    "report.gallery": 2,
}
"""A method in which every stage but one has something to do, as small as can be."""


def digests(folder: Path, *names: str) -> dict[str, str]:
    """Hash of every file below some folders."""
    files = sorted(path for name in names for path in (folder / name).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path) for path in files}


def stage(folder: Path, name: str, *arguments: str) -> None:
    """Run a stage without DVC, in a fork."""

    def work() -> None:
        sys.argv = [name, *arguments]
        if name == "configure":
            configure.main()
        else:
            module = import_module(f"pipeline.{name}" + (".__main__" if name == "report" else ""))
            (stages.run_light if name in LIGHT else stages.run)(module)

    with chdir(folder):
        assert forked(work).status == 0, name


def metrics(folder: Path, name: str) -> dict[str, Any]:
    return read_scores(folder / "metrics", name, "")


def ran(output: str) -> set[str]:
    """Stages that DVC ran, from what it prints."""
    lines = [line for line in output.splitlines() if line.startswith("Running stage ")]
    return {line.split("'")[1] for line in lines}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone, small, run to the end by `dvc repro`."""
    folder = copy_repository(tmp_path_factory.mktemp("project"))
    set_knobs(folder / "params.yaml", SMALL)
    run("dvc", "repro", cwd=folder, quiet=True)
    commit(folder, "first run")
    return folder


def test_every_stage_leaves_its_artefacts_and_numbers(project: Path) -> None:
    for name in ARTEFACTS:
        found = metrics(project, name)
        keys = {
            "miou",
            "foreground_miou",
            "precision",
            "recall",
            "over_activation",
            "fpr",
            "fnr",
            "per_class",
            "images",
        }
        assert (
            keys <= found.keys()
            and {"split", "crf", "seed", "initial_weights", "pixel_labels"} <= found["protocol"].keys()
        )
        assert ("oracle" in found) == (name in ("seeds", "refined"))
        others = found.get("tune", {}).get("images", 0)
        assert 0 <= found["miou"] <= 1 and found["images"] + others == (4 if name == "segmenter" else 8)
        assert (others > 0) == (name != "segmenter"), "no number is of tune photographs"
        assert len(load_counts(project / f"data/counts/{name}.npz").ids) == found["images"]
    assert metrics(project, "seeds")["oracle"]["miou"] >= metrics(project, "seeds")["miou"]
    assert 0 < metrics(project, "classifier")["map"] <= 1
    assert (project / "metrics/report/index.html").stat().st_size > 10_000
    assert len(list((project / "data/masks").glob("*.png"))) == 8
    assert len(list((project / "data/predictions").glob("*.png"))) == 4
    shown = run("dvc", "metrics", "show", cwd=project, quiet=True)
    assert all(f"metrics/{name}.json" in shown for name in (*ARTEFACTS, "classifier"))
    assert max(map(len, shown.splitlines())) <= 132 and "details" not in shown, "it fits a wide terminal"


def test_second_repro_looks_at_the_files_and_runs_nothing(project: Path) -> None:
    assert ran(run("dvc", "repro", cwd=project, quiet=True)) == {"configure"}


def test_threshold_none_trains_no_classifier_and_extracts_nothing(project: Path) -> None:
    output = run("dvc", "exp", "run", "-S", "bg_thresh=none", "-n", "no-threshold", cwd=project, quiet=True)
    assert {"configure", "make_masks", "evaluate@seeds", "evaluate@masks", "train_segmenter", "report"} <= ran(output)
    before = {"prepare_data", "train_classifier", "train_localizer", "extract_cams", "train_affinity", "refine_cams"}
    assert not ran(output) & before
    assert metrics(project, "masks")["protocol"]["bg_thresh"] == "none"
    difference = run("dvc", "metrics", "diff", "HEAD", "no-threshold", cwd=project, quiet=True)
    assert "metrics/seeds.json" in difference and "miou" in difference
    plots = run("dvc", "plots", "diff", "HEAD", "no-threshold", "-o", "plots", cwd=project, quiet=True)
    assert "index.html" in plots
    assert "no-threshold" in run("dvc", "exp", "show", "--csv", cwd=project, quiet=True)
    run("git", "checkout", "-q", ".", cwd=project)
    back = run("dvc", "repro", cwd=project, quiet=True)
    assert ran(back) == {"configure"}, "the first run's results come from the run cache"


def test_study_runs_experiments_in_temporary_copies(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    before = digests(project, "data/masks")
    artefacts = ("seeds", "refined", "masks")
    commit_of_run, seconds = study.run_experiment("otsu", ["bg_thresh=otsu"], artefacts)
    kept = Path("metrics/studies/rules/otsu")
    study.keep_metrics(commit_of_run, kept, artefacts, seconds)
    assert "make_masks" in seconds and (kept / SECONDS).exists()
    assert read_scores(kept, "masks", "")["protocol"]["bg_thresh"] == "otsu"
    assert digests(project, "data/masks") == before, "the workspace is left alone"
    of_masks = load_counts(kept / "counts/masks.npz")
    assert len(of_masks.ids) == read_scores(kept, "masks", "")["images"]
    assert "| irn | otsu | 1 x 1 |" in study_table(study_runs(Path("metrics/studies/rules")))
    shutil.rmtree("metrics/studies")


def test_wrong_knob_stops_before_any_work(project: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run("dvc", "exp", "run", "--temp", "-S", "bg_thresh=yes", cwd=project, quiet=True)
    output = caught.value.stdout + caught.value.stderr
    assert "bg_thresh = 'yes' (str)" in output and "Traceback" not in output
    assert ran(output) <= {"configure"}


@pytest.fixture(scope="module")
def without_masks(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same project after prepare_data, with every ground-truth mask and its index removed."""
    folder = copy_repository(tmp_path_factory.mktemp("without_masks"))
    shutil.copytree(project / "data/config", folder / "data/config")
    shutil.copytree(project / "data/prepared", folder / "data/prepared")
    shutil.rmtree(folder / "data/prepared/scenes/masks")
    (folder / "data/prepared/ground_truth.json").unlink()
    return folder


def test_evaluate_alone_reads_masks_and_same_seed_gives_same_bytes(project: Path, without_masks: Path) -> None:
    for name in AFTER_PREPARE:
        stage(without_masks, name)
    made = [
        f"data/{name}"
        for name in ("classifier", "localizer", "seeds", "affinity", "refined", "masks", "segmenter", "predictions")
    ]
    assert digests(without_masks, *made) == digests(project, *made)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(sys.executable, "-m", "pipeline.evaluate", "seeds", cwd=without_masks, quiet=True)
    assert "ground_truth.json" in caught.value.stderr and "Traceback" not in caught.value.stderr


def test_killed_training_continues_to_the_same_bytes(project: Path, without_masks: Path) -> None:
    set_knobs(project / "params.yaml", {"seed": 7})
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["dvc", "repro", "train_classifier"]
    process = subprocess.Popen(command, cwd=project, env=os.environ | {"PATH": path}, start_new_session=True)
    checkpoints = project / ".resume/train_classifier"
    before = set(checkpoints.glob("*/checkpoint.pt"))
    deadline = time.monotonic() + 120
    while not set(checkpoints.glob("*/checkpoint.pt")) - before:
        assert process.poll() is None and time.monotonic() < deadline, "no checkpoint to kill after"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    output = run("dvc", "repro", "train_classifier", cwd=project, quiet=True)
    assert "continuing after epoch" in output

    shutil.copytree(project / "data/config", without_masks / "data/config", dirs_exist_ok=True)
    stage(without_masks, "train_classifier")
    assert digests(project, "data/classifier") == digests(without_masks, "data/classifier")
    run("git", "checkout", "-q", ".", cwd=project)


def test_folder_of_photographs_without_masks(project: Path, tmp_path: Path) -> None:
    folder, photographs = copy_repository(tmp_path / "clone"), tmp_path / "photographs"
    shutil.copytree(project / "data/prepared/scenes/images", photographs)
    rows = (project / "data/prepared/manifest.csv").read_text().splitlines()[1:]
    lines = [f"{Path(row.split(',')[2]).name},{row.split(',')[5]},{row.split(',')[1]}" for row in rows]
    (photographs / "labels.csv").write_text(
        "\ufeffimage,labels,split\r\n" + "\r\n".join(lines) + "\r\n", encoding="utf-8"
    )
    trainings = ("classifier", "segmenter")
    knobs = {"data.name": "folder", "data.root": str(photographs), "report.gallery": 2}
    set_knobs(folder / "params.yaml", knobs | {f"{name}.optimisation.epochs": 1 for name in trainings})
    for name in ("configure", "prepare_data", *AFTER_PREPARE):
        stage(folder, name)
    for name in ARTEFACTS:
        stage(folder, "evaluate", name)
        found = metrics(folder, name)
        assert found["images"] == 0 and found["protocol"]["masks_given"] is False and "miou" not in found
        assert 0 <= found["coverage"]["foreground"] <= 1
    for name in ("rules", "localizer"):
        stage(folder, "evaluate", name)
    stage(folder, "report")
    assert "no masks" in (folder / "metrics/report/index.html").read_text().lower()


def test_folder_where_all_photographs_train(project: Path, tmp_path: Path) -> None:
    folder, photographs = copy_repository(tmp_path / "clone"), tmp_path / "photographs"
    shutil.copytree(project / "data/prepared/scenes/images", photographs)
    rows = [row.split(",") for row in (project / "data/prepared/manifest.csv").read_text().splitlines()[1:]]
    (photographs / "labels.csv").write_text("image,labels\n" + "".join(f"{Path(r[2]).name},{r[5]}\n" for r in rows))
    knobs: dict[str, Any] = {"data.name": "folder", "data.root": str(photographs), "data.folder.val_share": 0.0}
    trainings = ("classifier", "segmenter")
    set_knobs(folder / "params.yaml", knobs | {f"{name}.optimisation.epochs": 1 for name in trainings})
    for name in ("configure", "prepare_data", *AFTER_PREPARE):
        stage(folder, name)
    for name in ARTEFACTS:
        stage(folder, "evaluate", name)
        assert metrics(folder, name)["images"] == 0
    for name in ("rules", "localizer"):
        stage(folder, "evaluate", name)
    stage(folder, "report")
    assert not any((folder / "data/predictions").iterdir()) and (folder / "data/predictor/predictor.json").exists()


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text that stands once in a file."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path} has changed: mend this test"
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_an_edit_runs_what_uses_the_code(project: Path) -> None:
    run("git", "checkout", "-q", ".", cwd=project)
    walk = project / "models/refine/walk.py"
    edit(walk, '"""Random walk of class scores', '"""Another word. Random walk of class scores')
    assert ran(run("dvc", "repro", cwd=project, quiet=True)) == {"configure"}, "a docstring is no code"

    edit(walk, "degree = torch.ones(batch", "degree = 2 * torch.ones(batch")
    before = run("git", "status", "--porcelain", cwd=project, quiet=True)
    status = run(sys.executable, "-m", "tools.status", cwd=project, quiet=True).splitlines()
    assert run("git", "status", "--porcelain", cwd=project, quiet=True) == before, "asking changes nothing"
    assert "refine_cams: code of this stage changed" in status
    assert "evaluate@refined: code of refine_cams changed" in status
    assert not [line for line in status if line.startswith(("train_affinity", "extract_cams", "evaluate@seeds"))]
    after = ran(run("dvc", "repro", "make_masks", "evaluate@refined", "evaluate@seeds", cwd=project, quiet=True))
    assert after == {"configure", "refine_cams", "choose_background", "make_masks", "evaluate@refined"}


def test_an_edit_of_another_method_runs_configure_alone(project: Path) -> None:
    tiny = {"localizer.toco.crop": 32, "localizer.toco.decoder_width": 8, "localizer.optimisation.epochs": 1}
    set_knobs(project / "params.yaml", {"method": "toco"} | tiny)
    first = ran(run("dvc", "repro", "train_localizer", cwd=project, quiet=True))
    assert first == {"configure", "train_classifier", "train_localizer"}
    edit(project / "models/bao/network.py", "import torch\n", "import torch\n\nADDED = 1\n")
    assert ran(run("dvc", "repro", "train_localizer", cwd=project, quiet=True)) == {"configure"}
