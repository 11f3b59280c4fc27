"""The pool of processes that light stages use too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from pipeline.run import pool
from pipeline.run.errors import UserError
from tests.support import ROOT
from tools.campaign.running import processes


def test_work_is_done_in_other_processes_of_one_thread_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "ProcessPoolExecutor", ProcessPoolExecutor)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    names = ["OMP_NUM_THREADS", "not set", "OMP_NUM_THREADS"]
    assert pool.in_processes(os.getenv, names, ["-", "x", "-"], title="", workers=0) == ["1", "x", "1"]


def test_scenes_are_drawn_without_pytorch() -> None:
    program = "import sys, pipeline.prepare_data, pipeline.data.sources.scenes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


ORPHAN = """import os, signal, subprocess, sys, time
from pathlib import Path

def work(item):
    Path(f"worker-{os.getpid()}").touch()
    time.sleep(60)

if __name__ == "__main__":
    from pipeline.run.pool import in_processes
    in_processes(work, [1], title="", workers=1)
"""


@pytest.mark.parametrize("early", [True, False])
def test_processes_of_a_killed_pool_end_also_while_they_start(tmp_path: Path, early: bool) -> None:
    (tmp_path / "orphan.py").write_text(("import pipeline\nimport time\ntime.sleep(2)\n" if early else "") + ORPHAN)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    command = [sys.executable, "-m", "orphan"]
    killed = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (members := living(killed.pid)) if early else not list(tmp_path.glob("worker-*")):
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    deadline = time.monotonic() + 20
    while members := living(killed.pid):
        assert time.monotonic() < deadline, members
        time.sleep(0.05)


def living(session: int) -> list[str]:
    """Processes of a session that a pool has started."""
    found = (words for _, _, own, words in processes() if own == session)
    return [words for words in found if "spawn_main" in words]


def test_killed_process_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "ProcessPoolExecutor", ProcessPoolExecutor)
    with pytest.raises(UserError, match=r"masks: a process that worked on this was killed.*workers \(now 1\)"):
        pool.in_processes(signal.raise_signal, [signal.SIGKILL], title="masks", workers=1)
