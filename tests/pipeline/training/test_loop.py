"""The training loop: schedule, order, resume after kill -9, bad losses, mixed precision, several processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from models.schedules import warm_poly_rate
from pipeline.run.errors import UserError
from pipeline.run.resume import fingerprint, load_checkpoint, resume_folder
from pipeline.training.loop import epoch_batches
from tests.support import ROOT
from tests.support.tiny_training import SETTINGS, digest, train, write_runtime


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_runtime(tmp_path)
    return tmp_path


def run(folder: Path, *launcher: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(launcher or ("-m",)), "tests.support.tiny_training"]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)


def result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.split("RESULT ")[1])
    return found


def test_poly_at_half_is_the_published_value() -> None:
    assert warm_poly_rate(500, 1, 1000, warmup=0) == pytest.approx(0.5359, abs=1e-4)
    assert warm_poly_rate(0, 1, 1000, warmup=0) == 1


def test_every_example_once_per_epoch_and_full_batches() -> None:
    batches = epoch_batches(11, 4, seed=0, epoch=2)
    assert [len(batch) for batch in batches] == [4, 4, 4]
    assert sorted([index for batch in batches for index in batch][:11]) == list(range(11))
    assert epoch_batches(11, 4, 0, 2) == batches != epoch_batches(11, 4, 0, 3)
    assert len(epoch_batches(3, 16, 0, 0)[0]) == 3


def test_training_learns_and_repeats(workspace: Path) -> None:
    first, history = train()
    assert len(history) == SETTINGS.epochs and history[-1]["loss"] < history[0]["loss"]
    assert history[0]["half"] == pytest.approx(history[0]["loss"] / 2)
    other, _ = train(seed=1)
    shutil.rmtree(workspace / ".resume")
    again, _ = train()
    assert digest(first) == digest(again) != digest(other)


def test_workers_change_nothing(workspace: Path) -> None:
    alone, _ = train()
    write_runtime(workspace, workers=2)
    shutil.rmtree(workspace / ".resume")
    shared, _ = train()
    assert digest(alone) == digest(shared)


@pytest.mark.parametrize(("epochs", "optimiser"), [(1, "sgd"), (3, "sgd"), (2, "adamw")])
def test_killed_and_continued_equals_uninterrupted(tmp_path: Path, epochs: int, optimiser: str) -> None:
    for name in ("whole", "killed"):
        write_runtime(tmp_path / name)
    whole = result(run(tmp_path / "whole", OPTIMISER=optimiser))
    killed = run(tmp_path / "killed", KILL_AFTER=str(epochs), OPTIMISER=optimiser)
    assert killed.returncode == -signal.SIGKILL and "RESULT" not in killed.stdout
    continued = run(tmp_path / "killed", OPTIMISER=optimiser)
    assert f"continuing after epoch {epochs} of 4" in continued.stdout
    assert result(continued)["digest"] == whole["digest"]


def test_two_processes_do_the_work_of_one(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_runtime(tmp_path / name)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    one, two = result(run(tmp_path / "one")), result(run(tmp_path / "two", *torchrun))
    # Dropout draws differ between the ranks, so the weights are close, not equal.
    assert torch.tensor(one["weights"]).sub(torch.tensor(two["weights"])).abs().max() < 0.2
    assert two["loss"] == pytest.approx(one["loss"], abs=0.2)


def test_batch_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    write_runtime(tmp_path)
    done = run(tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", "-m")
    assert done.returncode != 0 and "does not divide among 3 processes" in done.stderr


def test_bfloat16_autocast_trains(workspace: Path) -> None:
    write_runtime(workspace, precision="bfloat16")
    network, history = train()
    assert history[-1]["loss"] < history[0]["loss"]
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_bad_loss_names_epoch_images_and_checkpoint(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POISON", "1")
    with pytest.raises(UserError, match=r"epoch 1, step \d.*learning rates.*image 3"):
        train()


def test_second_run_of_the_same_work_is_refused(workspace: Path) -> None:
    first, second = (resume_folder("tiny", SETTINGS, []) for _ in range(2))
    with first, pytest.raises(UserError, match="already running"), second:
        pass


def test_fingerprint_covers_knobs_inputs_and_code(workspace: Path) -> None:
    file = workspace / "input"
    file.write_text("a")
    base = fingerprint(SETTINGS, [file])
    assert fingerprint(SETTINGS.model_copy(update={"lr": 0.2}), [file]) != base
    file.write_text("b")
    assert fingerprint(SETTINGS, [file]) != base


def test_finished_work_of_others_is_removed_and_unfinished_kept(workspace: Path) -> None:
    finished, unfinished = (workspace / ".resume/tiny" / name for name in ("old", "killed"))
    for folder in (finished, unfinished):
        folder.mkdir(parents=True)
    (finished / "finished").touch()
    with resume_folder("tiny", SETTINGS, []) as mine:
        assert not finished.exists() and unfinished.exists()
    assert (mine / "finished").exists()


def test_checkpoint_refuses_pickled_objects(tmp_path: Path) -> None:
    torch.save({"path": tmp_path}, tmp_path / "bad.pt")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        load_checkpoint(tmp_path / "bad.pt")
