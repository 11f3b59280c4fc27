"""Running stages inside a test, in the current folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from models.knobs import Knobs
from pipeline.run.files import write_json
from pipeline.run.runtime import Machine, be_deterministic, machine_of
from pipeline.run.told import Runtime, told

LOCAL = {"root": ".", "device": "cpu", "processes": 1, "workers": 0}


class Stage(Protocol):
    """The module of a stage."""

    def main(self, machine: Any) -> None: ...


def write_runtime(folder: Path, **changes: object) -> None:
    """What `configure` writes for stages to run in a folder: on the CPU, in one process."""
    write_json(folder / "data/config/runtime.json", LOCAL | changes)


def here() -> Machine:
    """The machine that the current folder's `runtime.json` describes."""
    be_deterministic()
    return machine_of(told("runtime", Runtime))


def run(stage: Stage) -> None:
    """Run a stage that uses PyTorch in this process."""
    stage.main(here())


def run_light(stage: Stage) -> None:
    """Run a stage that uses none."""
    stage.main(told("runtime", Runtime))


def config_class(stage: str) -> type[Knobs]:
    """What a stage reads its knobs with, by the name of its file below `data/config`."""
    name = "evaluate" if stage.startswith("evaluate_") else stage
    words = "".join(word.capitalize() for word in name.split("_"))
    module = import_module(f"pipeline.{name}" + (".finished" if name == "report" else ""))
    found: type[Knobs] = getattr(module, f"{words}Config")
    return found


class InlinePool:
    """Stands in for a pool of processes: the work is done here and now."""

    def __init__(self, *_: object, **__: object) -> None:
        """What a pool is made with says how, not what."""

    def __enter__(self) -> InlinePool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing is left to end."""

    def map(self, job: Callable[..., Any], *items: Iterable[Any], chunksize: int = 1) -> Iterator[Any]:
        """One result after the other."""
        return map(job, *items)
