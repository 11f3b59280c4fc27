"""How a process ends when others do: with its parent, and without a word. Nothing that takes time is imported here."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_like_others(parent: int | None = None) -> None:
    """Do not outlive the parent; end at Ctrl-C as at any other signal. Unfinished work goes on in the next run.

    Args:
        parent: number of the process that started this one; none: of the one that is its parent now.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # shells start background jobs without it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    die_with_parent(os.getppid() if parent is None else parent)


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies (Linux), so that a killed DVC leaves no orphan."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("the parent process ended during start-up")
