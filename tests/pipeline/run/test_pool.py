"""The pool of processes that light stages use too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from pipeline.run import pool
from pipeline.run.errors import UserError
from tests.support import ROOT


def test_work_is_done_in_other_processes_of_one_thread_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "ProcessPoolExecutor", ProcessPoolExecutor)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    names = ["OMP_NUM_THREADS", "not set", "OMP_NUM_THREADS"]
    assert pool.in_processes(os.getenv, names, ["-", "x", "-"], title="", workers=0) == ["1", "x", "1"]


def test_scenes_are_drawn_without_pytorch() -> None:
    program = "import sys, pipeline.prepare_data, pipeline.data.sources.scenes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_killed_process_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "ProcessPoolExecutor", ProcessPoolExecutor)
    with pytest.raises(UserError, match=r"masks: a process that worked on this was killed.*workers \(now 1\)"):
        pool.in_processes(signal.raise_signal, [signal.SIGKILL], title="masks", workers=1)
