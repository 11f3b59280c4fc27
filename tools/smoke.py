"""The whole chain through DVC on a dozen scenes, in a copy of the repository that leaves the workspace untouched.

`python -m tools.smoke METHOD` is what `make smoke` runs; the end-to-end test uses the same functions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
SMALL = ("data.scenes.train=8", "data.scenes.val=4", "report.gallery=4")


def copy_repository(target: Path) -> Path:
    """A fresh git repository with the files of this one that git does not ignore, in one commit."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        # Results of this workspace are no part of a fresh copy.
        if not name.startswith("metrics/") and name != "dvc.lock" and (REPOSITORY / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)
    run("git", "init", "-q", "-b", "main", cwd=target)
    commit(target, "copy")
    return target


def commit(repository: Path, message: str) -> None:
    """Commit everything."""
    run("git", "add", "-A", cwd=repository)
    identity = ("-c", "user.name=smoke", "-c", "user.email=smoke@localhost")
    run("git", *identity, "commit", "-q", "-m", message, cwd=repository)


def run(*command: str, cwd: Path, quiet: bool = False) -> str:
    """Run a command with the interpreter of this process first on the path.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1"}
    pipe = subprocess.PIPE if quiet else None
    done = subprocess.run(command, cwd=cwd, check=True, text=True, env=environment, stdout=pipe, stderr=pipe)
    return (done.stdout or "") + (done.stderr or "")


def main() -> None:
    """Run the chain for the method named on the command line, and show its numbers."""
    method = sys.argv[1] if len(sys.argv) > 1 else "cam"
    target = REPOSITORY / ".smoke" / method
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    copy_repository(target)
    knobs = [word for knob in (f"method={method}", *SMALL) for word in ("-S", knob)]
    run("dvc", "exp", "run", *knobs, cwd=target)
    run("dvc", "metrics", "show", "--precision", "3", cwd=target)
    print(f"\nReport: {target / 'metrics/report/index.html'}")


if __name__ == "__main__":
    main()
