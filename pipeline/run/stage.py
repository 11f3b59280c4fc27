"""How a stage starts and ends: clear errors, one process group, no orphan when DVC is killed.

Nothing heavy is imported here, so that light stages start at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pipeline.run.errors import UserError, disk_is_full
from pipeline.run.parent import end_like_others
from pipeline.run.source import check_code
from pipeline.run.told import Runtime, told

if TYPE_CHECKING:
    from pipeline.run.runtime import Machine

NO_ROOM_LEFT = (
    "the disk below {folder} is full, or a quota is reached ({reason}); make room and run the same command again: it "
    "goes on with what is finished, and nothing that was there is lost"
)


def run_stage(main: Callable[[], None]) -> None:
    """Run a program's `main`; a UserError or a full disk ends it with a message and status 1, without a traceback."""
    end_like_others()
    try:
        main()
    except UserError as error:
        sys.exit(f"\nERROR: {error}")
    except Exception as error:
        if not disk_is_full(error):
            raise
        sys.exit(f"\nERROR: {NO_ROOM_LEFT.format(folder=Path.cwd(), reason=str(error).splitlines()[0])}")


def run_light_stage(main: Callable[[Runtime], None]) -> None:
    """Run a stage that needs no PyTorch; it is told how to run, and its code must stay that which `configure` saw."""

    def checked() -> None:
        check_code("after configure had run")
        main(told("runtime", Runtime))
        check_code("while it ran")

    run_stage(checked)


def run_distributed_stage(main: Callable[[Machine], None]) -> None:
    """Run a stage that uses PyTorch, under torchrun when the knob `processes` asks for more than one.

    A stage that is not yet under torchrun replaces itself by torchrun, which starts it again `processes` times; a
    rendezvous of several machines is given to torchrun as usual, by starting the stage with it.
    """

    def under_torchrun(runtime: Runtime) -> None:
        if runtime.processes > 1 and "LOCAL_RANK" not in os.environ:
            become_torchrun(runtime.processes)
        from pipeline.run.runtime import distributed

        with distributed(runtime) as machine:
            main(machine)

    run_light_stage(under_torchrun)


def become_torchrun(processes: int) -> NoReturn:
    """Replace this process by torchrun, which runs the same module in so many processes."""
    module = sys.modules["__main__"].__spec__
    assert module is not None, "stages are started as python -m pipeline.<stage>"
    torchrun = [sys.executable, "-m", "pipeline.run.torchrun", "--standalone", f"--nproc-per-node={processes}"]
    os.execv(sys.executable, [*torchrun, "-m", module.name])
