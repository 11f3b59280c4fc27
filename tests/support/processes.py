"""Processes of their own for tests: forks of this one, which start at once, may be killed, and may work together."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import torch

FORK = multiprocessing.get_context("fork")


class Ended(NamedTuple):
    """How a process ended: its exit status (minus the signal that killed it); what its job gave, if it ended well."""

    status: int
    value: Any


def forked(job: Callable[[], Any]) -> Ended:
    """Run a job in a fork, on one thread."""
    return _end(*_start(job, {}))


def several(count: int, job: Callable[[], Any]) -> list[Ended]:
    """Run a job in so many forks that find in their environment what torchrun would have put there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [_start(job, group | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(count)]
    return [_end(*one) for one in started]


def _start(job: Callable[[], Any], environment: dict[str, str]) -> tuple[BaseProcess, Connection]:
    reader, writer = FORK.Pipe(duplex=False)

    def work() -> None:
        torch.set_num_threads(1)  # threads of OpenMP do not survive a fork
        os.environ.update(environment)
        writer.send(job())

    process = FORK.Process(target=work)
    process.start()
    writer.close()
    return process, reader


def _end(process: BaseProcess, reader: Connection) -> Ended:
    try:
        value = reader.recv()
    except EOFError:
        value = None
    process.join()
    assert process.exitcode is not None
    return Ended(process.exitcode, value)
