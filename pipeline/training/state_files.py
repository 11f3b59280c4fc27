"""Files that hold a state dict, names to tensors. They are read as data: nothing in them is executed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import safe_globals

from pipeline.run.errors import UserError

State = Mapping[str, Tensor]

WRAPPERS = ("state_dict", "model")
"""Under which of its entries a training's checkpoint may have its state dict."""

CONVERTER = "python -m tools.convert_weights IN OUT.safetensors"


def read_state(path: Path, allowed: Sequence[type] = ()) -> State:
    """A state dict from .safetensors, or from .pth with nothing but tensors, perhaps below `state_dict` or `model`.

    Args:
        path: of the file.
        allowed: classes that may stand beside the tensors. Their instances are filled with what the file says of them;
            no code of the file's runs.

    Raises:
        UserError: the file is missing, damaged, or holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with safe_globals(list(allowed)):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"weights {path} not found; give imagenet, none, or the path of a state dict") from error
    except Exception as error:  # torch.load raises many kinds; none may reach the user as a traceback
        raise UserError(f"weights {path} cannot be read as plain tensors: {reason(error, allowed)}") from error
    for key in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"weights {path} hold no state dict (names to tensors)")
    return state


def reason(error: Exception, allowed: Sequence[type]) -> str:
    """What a library says is wrong with a file, in one line."""
    text = str(error)
    if refused := re.search(r"Unsupported global: GLOBAL (\S+)", text):
        advice = "save the state dict alone" if allowed else f"{CONVERTER} takes files of training scripts"
        return f"it holds {refused[1]}; {advice}"
    first_sentence = re.split(r"[.]\s|\n", text)[0]
    return f"{type(error).__name__}: {first_sentence}"
