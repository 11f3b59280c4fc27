"""Files that hold a state dict, names to tensors. They are read as data: nothing in them is executed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import safe_globals

from pipeline.run.errors import UserError

State = Mapping[str, Tensor]

WRAPPERS = ("state_dict", "model")
"""Under which of its entries a training's checkpoint may have its state dict."""

LFS_POINTER, ZIP, PICKLE = b"version https://git-lfs", b"PK", b"\x80"
"""First bytes of files that people give as weights."""

CONVERTER = "python -m tools.convert_weights IN OUT.safetensors"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_state(path: Path, allowed: Sequence[type] = ()) -> State:
    """A state dict from .safetensors, or from .pth with nothing but tensors, perhaps below `state_dict` or `model`.

    Args:
        path: of the file.
        allowed: classes that may stand beside the tensors. Their instances are filled with what the file says of them;
            no code of the file's runs.

    Raises:
        UserError: the file is missing, damaged, holds more than tensors, or no usable numbers.
    """
    try:
        state = _read_tensors(path, allowed)
    except FileNotFoundError as error:
        raise UserError(f"weights {path} not found; give imagenet, none, or the path of a state dict") from error
    except Exception as error:  # torch.load raises many kinds; none may reach the user as a traceback
        raise UserError(
            f"weights {path} cannot be read as plain tensors: {_what_is_wrong(path, error, allowed)}"
        ) from error
    for key in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(_named(name, value) for name, value in state.items()):
        raise UserError(f"weights {path} hold no state dict (names to plain, dense tensors)")
    _check_numbers(path, state)
    return state


def _read_tensors(path: Path, allowed: Sequence[type]) -> Any:
    """What a file of weights holds, read without executing any of it."""
    if path.suffix == ".safetensors":
        return load_file(path)
    with safe_globals(list(allowed)):
        return torch.load(path, map_location="cpu", weights_only=True)


def _what_is_wrong(path: Path, error: Exception, allowed: Sequence[type]) -> str:
    """What a file that cannot be read holds or is instead, by its first bytes, and what to do."""
    if refused := re.search(r"Unsupported global: GLOBAL (\S+)", str(error)):
        advice = "save the state dict alone" if allowed else f"{CONVERTER} takes files of training scripts"
        return f"it holds {refused[1]}; {advice}"
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return "the file is empty; fetch it again"
    if start.startswith(LFS_POINTER):
        return "it is a pointer of Git LFS, not the file itself; run `git lfs pull` where it comes from"
    if start.lstrip().startswith(b"<"):
        return "it is a web page, most often of a download that failed; fetch it again"
    if start.startswith((ZIP, PICKLE)):
        return (
            "it is damaged, or holds objects beside tensors, which may run code and are never loaded; fetch it again, "
            "or save its state dict alone, as .safetensors"
        )
    return "it is no file of PyTorch or safetensors, or is damaged; fetch it again"


def _named(name: Any, value: Any) -> bool:
    """Whether an entry of a state dict is a name with a tensor whose values are there."""
    dense = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_nested and not value.is_meta
    return isinstance(name, str) and dense


def _check_numbers(path: Path, state: State) -> None:
    """Refuse weights that no network can start from.

    Raises:
        UserError: naming the first tensor that holds no real numbers (counters and masks apart), or one not finite.
    """
    if not any(value.is_floating_point() for value in state.values()):
        raise UserError(f"weights {path} hold no floating-point tensor; quantised weights are not read")
    for name, value in state.items():
        kind = str(value.dtype).removeprefix("torch.")
        if value.is_complex():
            raise UserError(f"weights {path}: {name} is {kind}; weights are real numbers")
        if name.endswith((".weight", ".bias")) and value.dtype not in FLOATS:
            raise UserError(f"weights {path}: {name} is {kind}; give weights in float16, bfloat16, float32 or float64")
        if value.is_floating_point() and not torch.isfinite(value.float()).all():
            raise UserError(f"weights {path}: {name} holds NaN or an infinity; the training that wrote them diverged")
