"""How a stage starts and ends: clear errors, one process group, no orphan when DVC is killed.

Nothing heavy is imported here, so that light stages start at once.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

from pipeline.run.errors import UserError

PR_SET_PDEATHSIG = 1


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's `main`; a UserError ends it with a message and status 1, without a traceback."""
    die_with_parent()
    try:
        main()
    except UserError as error:
        sys.exit(f"\nERROR: {error}")


def run_distributed_stage(main: Callable[[], None]) -> None:
    """As `run_stage`, but under torchrun when the knob `processes` asks for more than one.

    A stage that is not yet under torchrun replaces itself by torchrun, which starts it again `processes` times; a
    rendezvous of several machines is given to torchrun as usual, by starting the stage with it.
    """
    from pipeline.config.params import Runtime, stage_config

    def under_torchrun() -> None:
        processes = stage_config("runtime", Runtime).processes
        if processes > 1 and "LOCAL_RANK" not in os.environ:
            module = sys.modules["__main__"].__spec__
            assert module is not None, "stages are started as python -m pipeline.<stage>"
            torchrun = [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                f"--nproc-per-node={processes}",
            ]
            os.execv(sys.executable, [*torchrun, "-m", module.name])
        from pipeline.run.runtime import distributed

        with distributed():
            main()

    run_stage(under_torchrun)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux), so that a killed DVC leaves no orphan."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("the parent process ended during start-up")
