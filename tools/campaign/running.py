"""Stages that really run: as forks of this process, which has loaded what takes long, and as commands."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, NoReturn

from pipeline.run import pool

HEAVY = ("pipeline.train_localizer", "pipeline.refine_cams", "pipeline.evaluate", "pipeline.report.page")
"""Modules that load together what stages load."""

LIMIT = 600.0
"""Seconds after which a stage hangs."""

PATIENCE = 15.0
"""Seconds that processes have to follow the one that they work for."""


class Ended(NamedTuple):
    """How something ended: exit status (minus the signal that ended it), and what it printed."""

    status: int
    output: str


def load() -> None:
    """Load what takes long, so that forks start at once."""
    import torch

    os.environ |= environment()
    torch.set_num_threads(1)  # threads do not survive a fork
    for name in HEAVY:
        import_module(name)


def forked(folder: Path, stage: str, watch: Callable[[int], object] | None = None, workers: bool = False) -> Ended:
    """Run a stage to its end in a fork of this process, as `python -m pipeline.<stage>` would.

    Args:
        folder: of the project.
        stage: as its command names it, such as `evaluate seeds`.
        watch: called again and again with the number of the process, until it gives something.
        workers: whether its pool has processes of its own, which start slowly; otherwise it has a thread.
    """
    log = log_of(folder)
    if (child := os.fork()) == 0:
        if not workers:
            pool.ProcessPoolExecutor = lambda *_, **__: ThreadPoolExecutor(1)  # type: ignore[assignment, misc]
        _be(folder, stage, log)
    waiting, deadline = watch, time.monotonic() + LIMIT
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if waiting is not None and waiting(child):
            waiting = None
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    return Ended(os.waitstatus_to_exitcode(ended[1]), log.read_text("utf-8", "replace"))


def _be(folder: Path, stage: str, log: Path) -> NoReturn:
    """Become a stage; the end of this process."""
    name, *arguments = stage.split()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", encoding="utf-8"), os.fdopen(2, "w", encoding="utf-8")
    status = 1
    try:
        os.chdir(folder)
        module = f"pipeline.{name}"
        sys.argv = [module, *arguments]
        for loaded in [key for key in sys.modules if key in (module, f"{module}.__main__")]:
            del sys.modules[loaded]
        warnings.filterwarnings("ignore", module="runpy")
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def log_of(folder: Path, name: str = "log") -> Path:
    """Where what runs in a folder prints: beside it, where there is room."""
    return folder.with_name(f"{folder.name}.{name}")


def environment() -> dict[str, str]:
    """That of commands: one thread, and the programs beside this interpreter first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"}


def dvc_command(stage: str) -> list[str]:
    """The command that lets DVC run one stage, whether or not it has its result."""
    return ["dvc", "repro", "--single-item", "--no-run-cache", stage]


def hand_command(stage: str) -> list[str]:
    """The command that runs a stage without DVC."""
    name, _, argument = stage.partition("@")
    return [sys.executable, "-m", f"pipeline.{name}", *([argument] if argument else [])]


class Session:
    """A command in a session of its own, whose processes can be told apart from all others."""

    def __init__(self, folder: Path, command: list[str], log: str = "log") -> None:
        self.log = log_of(folder, log)
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment(), stdout=output, stderr=output, start_new_session=True
            )

    def members(self) -> dict[int, tuple[int, str]]:
        """Parent and command line of each living process, by its number."""
        return {
            process: (parent, command)
            for process, parent, session, command in processes()
            if session == self.process.pid
        }

    def ended(self) -> Ended:
        """How the command ended; the end of all its processes is waited for too, for some seconds."""
        status = self.process.wait(LIMIT)
        deadline = time.monotonic() + PATIENCE
        while self.members() and time.monotonic() < deadline:
            time.sleep(0.05)
        return Ended(status, self.log.read_text("utf-8", "replace"))


def run(folder: Path, command: list[str]) -> Ended:
    """Run a command to its end."""
    return Session(folder, command).ended()


def processes() -> Iterator[tuple[int, int, int, str]]:
    """Number, parent, session and command line of every living process (Linux)."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended just now
                state, parent, _, session = entry.joinpath("stat").read_text().rpartition(")")[2].split()[:4]
                words = entry.joinpath("cmdline").read_bytes().decode("utf-8", "replace").split("\0")
                if state != "Z":
                    yield int(entry.name), int(parent), int(session), " ".join(words).strip()


def children(process: int) -> list[int]:
    """The living children of a process."""
    return [number for number, parent, _, _ in processes() if parent == process]


def living(folder: Path) -> list[str]:
    """The command lines of processes that still work in a folder, after some seconds; they are killed."""
    deadline = time.monotonic() + PATIENCE
    while (found := _working_in(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in found:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return list(found.values())


def _working_in(folder: Path) -> dict[int, str]:
    found = {}
    for process, _, _, command in processes():
        with suppress(OSError):
            if Path(f"/proc/{process}/cwd").resolve() == folder.resolve():
                found[process] = command
    return found
