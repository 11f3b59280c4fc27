"""Libraries that only some tools need, and that `make setup` does not install."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pipeline.run.errors import UserError

REQUIREMENTS = "requirements-extras.txt"


def library(module: str, package: str) -> Any:
    """Import an optional library.

    Args:
        module: its name in Python.
        package: its name for pip, for messages.

    Raises:
        UserError: it is missing; names the file of requirements that has it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(f"{package} is needed ({error}); run `pip install -r {REQUIREMENTS}`") from error
