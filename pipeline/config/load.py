"""From params.yaml to the checked configuration; everything that is wrong with it is told at once."""

from __future__ import annotations

import os
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from yaml import YAMLError

from pipeline.config.data import DataKnobs
from pipeline.config.explain import explain
from pipeline.config.params import Params
from pipeline.config.presets import PROFILES, Layer, Tree, defaults, given, imports, layers, merge, methods
from pipeline.config.yaml_text import parsed
from pipeline.run.errors import UserError, listed

ROOT = "DATA_ROOT"
"""The variable of the environment that gives `data.root` where params.yaml leaves it at none: any path fits there."""


def all_layers(raw: Any) -> list[Layer]:
    """Every place that gives values, in the order in which they apply: defaults, presets, params.yaml, environment.

    Args:
        raw: what YAML gave for params.yaml.

    Raises:
        UserError: it holds no knobs, or names no method, profile or data set that exists.
    """
    if not isinstance(raw, dict):
        raise UserError("params.yaml holds no knobs; restore the shipped file")
    method, profile, data = raw.get("method"), raw.get("profile"), raw.get("data")
    for key, value, allowed in (("method", method, methods()), ("profile", profile, PROFILES)):
        if value not in allowed:
            raise UserError(
                f"params.yaml: {key} = {value!r} ({type(value).__name__}): allowed are {', '.join(allowed)}"
            )
    named = given(data).get("name") if isinstance(data, dict) else None
    presets = layers(str(method), str(profile), str(named or DataKnobs.model_fields["name"].default))
    own = given(raw)
    layered = [Layer("default", defaults(Params)), *presets, *imports(own), Layer("params.yaml", own)]
    return [*layered, *_environment(data if isinstance(data, dict) else {})]


def _environment(data: dict[str, Any]) -> list[Layer]:
    """The root of the photographs, where the environment gives one and params.yaml does not."""
    is_open = str(data.get("root")).strip().lower() in ("none", "preset") and data.get("name", "scenes") != "scenes"
    root = os.environ.get(ROOT) if is_open else None
    return [Layer(ROOT, {"data": {"root": root}})] if root else []


def resolve(raw: Any) -> Params:
    """Check the whole of params.yaml and fill in presets and defaults.

    Args:
        raw: what YAML gave for params.yaml.

    Raises:
        UserError: naming each wrong key, its value and type, and what is allowed; all of them at once.
    """
    filled: Tree = reduce(merge, (layer.values for layer in all_layers(raw)), {})
    try:
        return Params.model_validate(filled)
    except ValidationError as error:
        raise UserError("params.yaml cannot be used:\n" + listed(explain(error, filled))) from error


def read_params(path: Path = Path("params.yaml")) -> Any:
    """What YAML gives for params.yaml.

    Raises:
        UserError: the file is missing, or is not YAML in UTF-8.
    """
    try:
        return parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} not found; run from the root of the repository") from error
    except UnicodeDecodeError as error:
        line, byte = error.object.count(b"\n", 0, error.start) + 1, error.object[error.start]
        raise UserError(f"{path}, line {line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from error
    except YAMLError as error:
        raise UserError(f"{path} is not readable YAML: {error}") from error


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        UserError: the file is missing, is not YAML, or holds a wrong knob.
    """
    return resolve(read_params(path))
