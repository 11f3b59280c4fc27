"""How a process ends when others do: with its parent, and without a word. Nothing that takes time is imported here."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_like_others() -> None:
    """Do not outlive the parent; end at Ctrl-C as at any other signal. Unfinished work goes on in the next run."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # shells start background jobs without it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    die_with_parent()


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux), so that a killed DVC leaves no orphan."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("the parent process ended during start-up")
