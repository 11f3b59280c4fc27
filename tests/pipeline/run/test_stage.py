"""How stages start and end: edited code, Ctrl-C, full disks, failures of several processes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError

from pipeline.config.code import code_digest
from pipeline.run import source
from pipeline.run.errors import UserError
from pipeline.run.files import write_json
from pipeline.run.stage import run_stage
from pipeline.scoring.charts import new_figure
from tests.support import ROOT
from tests.support.stages import write_runtime

FULL = Path("/dev/full")
"""Every write to it finds no room; tests write to a link to it, which a writer may replace."""

WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("x"),
    "copy": lambda path: shutil.copyfile(__file__, path),
    "checkpoint": lambda path: torch.save({"x": torch.zeros(100_000)}, path),
    "mask": lambda path: Image.new("P", (500, 500)).save(path, format="PNG"),
    "counts": lambda path: np.savez(path.open("wb"), np.zeros(100_000)),
    "chart": lambda path: new_figure().savefig(path, format="png"),
}


@pytest.mark.skipif(not FULL.is_char_device(), reason="no /dev/full here")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", WRITERS)
def test_full_disk_is_said_in_a_sentence(tmp_path: Path, kind: str) -> None:
    (tmp_path / "full").symlink_to(FULL)
    with pytest.raises(Exception, match=r"\w") as caught:
        WRITERS[kind](tmp_path / "full")
    assert sentence(caught.value).startswith(f"\nERROR: the disk below {Path.cwd()} is full")


def test_full_disk_that_safetensors_met_is_said_too() -> None:
    error = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert "is full" in sentence(error)


def sentence(error: Exception) -> str:
    """What a stage ends with when an error has reached its top."""

    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_stage(fail)
    return str(ended.value)


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_stage(lambda: print(1 / 0))


def program(folder: Path, text: str, module: str = "pipeline.slow") -> list[str]:
    """A copy of this project's shared code with a stage of its own; the command that starts it."""
    for name in ("pipeline", "models"):
        if not (folder / name).exists():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / f"{module.replace('.', '/')}.py").write_text(text)
    return [sys.executable, "-m", module]


SLOW = """from pathlib import Path
from time import sleep
from pipeline.run.stage import run_light_stage

def main(runtime):
    Path("started").touch()
    sleep(60 if not Path("quick").exists() else 0)

if __name__ == "__main__":
    run_light_stage(main)
"""


@pytest.mark.parametrize("early", [True, False])
def test_ctrl_c_ends_a_stage_without_a_traceback(tmp_path: Path, early: bool) -> None:
    slow = "from time import sleep\nfrom pathlib import Path\nPath('started').touch()\nsleep(60)\n"
    command = program(tmp_path, slow if early else SLOW)
    write_runtime(tmp_path)
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs hand on to ignore it
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, heard)
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == "" and process.returncode == -signal.SIGINT


def ended(command: list[str], folder: Path) -> tuple[int, str]:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_code_that_is_edited_is_noticed_before_and_after(tmp_path: Path) -> None:
    command = program(tmp_path, SLOW)
    write_runtime(tmp_path)
    (tmp_path / "quick").touch()
    digest = [sys.executable, "-c", "from pipeline.config.code import code_digest; print(code_digest('pipeline.slow'))"]
    record = {"chosen": [], "digest": ended(digest, tmp_path)[1].strip()}
    write_json(tmp_path / source.RECORDS, {"pipeline.slow": record})
    assert ended(command, tmp_path) == (0, "")
    program(tmp_path, SLOW + "# a comment is no code\n")
    assert ended(command, tmp_path) == (0, "")
    program(tmp_path, SLOW + "ADDED = 1\n")
    status, words = ended(command, tmp_path)
    assert status == 1 and "the code of pipeline.slow was edited after configure had run" in words
    editing = SLOW.replace("touch()", "touch(); Path(__file__).write_text(Path(__file__).read_text() + 'ADDED = 1')", 1)
    program(tmp_path, editing)
    record["digest"] = ended(digest, tmp_path)[1].strip()
    write_json(tmp_path / source.RECORDS, {"pipeline.slow": record})
    status, words = ended(command, tmp_path)
    assert status == 1 and "edited while it ran" in words and "Traceback" not in words


def test_programs_that_are_no_stages_are_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source.check_code("now")
    write_json(source.RECORDS, {"pipeline.slow": {"chosen": [], "digest": "x"}})
    source.check_code("now")
    monkeypatch.setattr(source, "started_module", lambda: "pipeline.slow")
    with pytest.raises(UserError, match="edited now"):
        source.check_code("now")
    write_json(source.RECORDS, {"pipeline.slow": {"chosen": ["x"], "digest": code_digest("pipeline.slow", ["x"])}})
    source.check_code("now")


FAILING = """from pipeline.run.errors import UserError
from pipeline.run.stage import run_distributed_stage

def main(machine):
    raise UserError("a.png: not found")

if __name__ == "__main__":
    run_distributed_stage(main)
"""


def test_error_stands_last_with_several_processes(tmp_path: Path) -> None:
    command = program(tmp_path, FAILING)
    write_runtime(tmp_path, processes=2)
    status, words = ended(command, tmp_path)
    assert status == 1 and "Traceback" not in words
    assert words.strip().splitlines()[-1] == "ERROR: a.png: not found"
