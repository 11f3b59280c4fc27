"""Unfinished work: locked, known by what it depends on, kept until it is done, free of pickles."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml

from pipeline.run.errors import UserError
from pipeline.run.files import write_json, write_text
from pipeline.run.resume import fingerprint, load_checkpoint, resume_folder, save_checkpoint
from tests.support.processes import forked
from tests.support.tiny_training import SETTINGS


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_second_run_of_a_stage_is_refused() -> None:
    def again() -> None:
        with pytest.raises(UserError, match="already running"), resume_folder("tiny", settings, []):
            pass

    settings = SETTINGS
    with resume_folder("tiny", SETTINGS, []):
        for seed in (SETTINGS.seed, 7):
            settings = SETTINGS.model_copy(update={"seed": seed})
            assert forked(again).status == 0, "also with other knobs: its outputs are the same"


def test_child_of_a_killed_run_holds_no_lock() -> None:
    def work() -> None:
        with resume_folder("tiny", SETTINGS, []):
            if (child := os.fork()) == 0:
                time.sleep(30)
                os._exit(0)
            Path("child").write_text(str(child))
            os.kill(os.getpid(), signal.SIGKILL)

    assert forked(work).status == -signal.SIGKILL
    child = int(Path("child").read_text())
    try:
        with resume_folder("tiny", SETTINGS, []):
            os.kill(child, 0)  # it lives
    finally:
        os.kill(child, signal.SIGKILL)


def test_fingerprint_covers_knobs_inputs_and_code() -> None:
    file = Path("input")
    file.write_text("a")
    base = fingerprint(SETTINGS, [file])
    assert fingerprint(SETTINGS.model_copy(update={"lr": 0.2}), [file]) != base
    assert fingerprint(SETTINGS.model_copy(update={"code": "0123456789abcdef"}), [file]) != base
    file.write_text("b")
    assert fingerprint(SETTINGS, [file]) != base


def test_finished_work_of_others_is_removed_and_unfinished_kept() -> None:
    finished, unfinished = (Path(".resume/tiny") / name for name in ("old", "killed"))
    for folder in (finished, unfinished):
        folder.mkdir(parents=True)
    (finished / "finished").touch()
    with resume_folder("tiny", SETTINGS, []) as mine:
        assert not finished.exists() and unfinished.exists()
    assert (mine / "finished").exists()


@pytest.mark.parametrize(
    ("lock", "kept"), [("none", True), ("other", True), ("this", False), ("cache", False), ("half", True)]
)
def test_finished_work_is_taken_again_until_dvc_has_the_result(lock: str, kept: bool) -> None:
    told = Path("data/config/tiny.json")
    write_json(told, SETTINGS.model_dump(mode="json"))
    with resume_folder("tiny", SETTINGS, []) as folder:
        (folder / "checkpoint.pt").touch()
        (folder / "result").mkdir()
    md5 = hashlib.md5(told.read_bytes()).hexdigest() if lock in ("this", "cache") else "0" * 32
    dependencies = [{"path": "models"}, {"path": str(told), "hash": "md5", "md5": md5}]
    if lock in ("this", "other"):
        write_text(Path("dvc.lock"), yaml.safe_dump({"schema": "2.0", "stages": {"tiny": {"deps": dependencies}}}))
    if lock == "cache":
        write_text(Path(".dvc/cache/runs/ab/abcd/ef01"), yaml.safe_dump({"cmd": "x", "deps": dependencies}))
    if lock == "half":
        write_text(Path("dvc.lock"), "<<<<<<< HEAD\nschema: [")
    with resume_folder("tiny", SETTINGS, []) as folder:
        names = sorted(path.name for path in folder.iterdir())
        assert names == (["checkpoint.pt", "finished", "result"] if kept else [])


def test_unfinished_work_goes_on_whatever_dvc_has() -> None:
    told = Path("data/config/tiny.json")
    write_json(told, {})
    md5 = hashlib.md5(told.read_bytes()).hexdigest()
    write_text(Path("dvc.lock"), yaml.safe_dump({"stages": {"tiny": {"deps": [{"path": str(told), "md5": md5}]}}}))
    with pytest.raises(RuntimeError), resume_folder("tiny", SETTINGS, []) as folder:
        (folder / "checkpoint.pt").touch()
        raise RuntimeError
    with resume_folder("tiny", SETTINGS, []):
        assert (folder / "checkpoint.pt").exists()


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped"])
def test_damaged_checkpoint_is_moved_aside_and_said(damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("checkpoint.pt")
    save_checkpoint(path, {"weights": torch.arange(1000.0)})
    assert load_checkpoint(path) is not None
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"empty": b"", "cut": bytes(data[: len(data) // 2]), "flipped": bytes(data)}[damage])
    assert load_checkpoint(path) is None
    assert "checkpoint.pt is damaged, and moved to checkpoint.pt.damaged" in capsys.readouterr().out
    assert not path.exists() and Path("checkpoint.pt.damaged").exists()


def test_checkpoint_of_another_run_is_moved_aside_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(Path("one/checkpoint.pt"), {"weights": torch.arange(3.0)})
    Path("other").mkdir()
    Path("one/checkpoint.pt").replace("other/checkpoint.pt")
    assert load_checkpoint(Path("other/checkpoint.pt")) is None
    assert "checkpoint.pt is of another run, and moved to" in capsys.readouterr().out


def test_checkpoint_refuses_pickled_objects() -> None:
    torch.save({"path": Path()}, "bad.pt")
    assert load_checkpoint(Path("bad.pt")) is None and Path("bad.pt.damaged").exists()


def test_no_flipped_bit_gives_another_state() -> None:
    path, weights = Path("checkpoint.pt"), torch.arange(6.0)
    save_checkpoint(path, {"weights": weights, "history": [{"loss": 0.5}], "epoch": 3})
    data = path.read_bytes()
    for place in range(0, len(data), 3):
        changed = bytearray(data)
        changed[place] ^= 0x10
        path.write_bytes(changed)
        found = load_checkpoint(path)
        assert found is None or (torch.equal(found["weights"], weights) and found["epoch"] == 3), place
