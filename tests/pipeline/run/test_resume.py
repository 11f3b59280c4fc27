"""Unfinished work: locked, known by what it depends on, kept until it is done, free of pickles."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.run.errors import UserError
from pipeline.run.resume import fingerprint, load_checkpoint, resume_folder
from tests.support.tiny_training import SETTINGS


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_second_run_of_the_same_work_is_refused() -> None:
    first, second = (resume_folder("tiny", SETTINGS, []) for _ in range(2))
    with first, pytest.raises(UserError, match="already running"), second:
        pass


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


def test_checkpoint_refuses_pickled_objects() -> None:
    torch.save({"path": Path()}, "bad.pt")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        load_checkpoint(Path("bad.pt"))
