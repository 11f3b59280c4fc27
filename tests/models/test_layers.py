"""Rooms of `models/` stand on each other in one order, and on nothing of the pipeline."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support import ROOT

ORDER = (
    "labels",
    "precision",
    "kernels",
    "schedules",
    "maps",
    "knobs",
    "registry",
    "build",
    "networks",
    "segmenters",
    "localizer",
    "propagation",
    "affinity",
    "refine",
    "transcam",
    "cam",
    "esol",
    "amn",
    "bao",
    "toco",
    "dual_branch",
    "task",
    "*.task",
)
"""Modules and folders of `models/` from the ground up; each may import what stands before it.

`*.task` are the files `task.py` of all folders, which may import those of earlier folders too.
"""

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "models").rglob("*.py"))
}


def imports(path: Path) -> Iterator[str]:
    """Modules of this project that a file imports, wherever in the file; of `from a import b` also `a.b`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def place(module: str) -> tuple[int, int]:
    """Where a module stands: its place in the order, and that of its folder."""
    _, room, *inside = module.split(".")
    return ORDER.index("*.task" if inside == ["task"] else room), ORDER.index(room)


def test_every_room_has_its_place() -> None:
    rooms = {module.split(".")[1] for module in FILES if module != "models"}
    assert rooms == set(ORDER) - {"*.task"}
    assert len(set(ORDER)) == len(ORDER)


def test_modules_import_what_stands_below_them() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, path in FILES.items()
        for other in imports(path)
        if other in FILES and "models" not in (module, other)
        if module.split(".")[1] != other.split(".")[1] and place(other) >= place(module)
    ]
    assert not wrong


def test_models_know_nothing_of_the_pipeline() -> None:
    foreign = ("pipeline", "tools", "tests")
    pairs = [(module, other) for module, path in FILES.items() for other in imports(path)]
    assert not [f"{module} imports {other}" for module, other in pairs if other.split(".")[0] in foreign]


def test_knobs_and_tables_are_read_without_pytorch() -> None:
    light = [name for name in FILES if name.split(".")[-1] == "knobs"] + ["models.registry", "models.propagation.rules"]
    program = f"import sys, {', '.join(light)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
