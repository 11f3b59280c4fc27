"""Weights of networks: initial ones from a trusted place, trained ones as safetensors beside a description."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from models.build import build, carrier
from models.task import Pretrained
from pipeline.run.checksum import checksum
from pipeline.run.errors import UserError
from pipeline.run.files import expanded, read_json, sha256, write_atomic, write_json
from pipeline.training.imagenet import imagenet_state
from pipeline.training.state_files import State, read_state

LOOK_AGAIN = "run `dvc repro`, which looks at it again"
CHECKSUM = "crc32"


def save_network(folder: Path, network: nn.Module, description: Mapping[str, Any]) -> None:
    """Write `network.json` and `weights.safetensors`; same weights, same bytes."""
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    metadata = {CHECKSUM: str(checksum(state))}
    write_atomic(folder / "weights.safetensors", lambda temporary: save_file(state, temporary, metadata=metadata))
    write_json(folder / "network.json", description)


def load_network(folder: Path, producer: str) -> Any:
    """Build a network as described in `folder` and load its weights, whose checksum is looked at.

    Args:
        folder: what `save_network` wrote.
        producer: the stage that writes the folder, for messages.

    Raises:
        UserError: a file is missing or damaged.
    """
    network = build(read_json(folder / "network.json", producer))
    try:
        with safe_open(folder / "weights.safetensors", framework="pt") as file:
            names = list(file.keys())
            state = {name: file.get_tensor(name) for name in names}
            if (file.metadata() or {}).get(CHECKSUM) != str(checksum(state)):
                raise OSError("the checksum does not fit")
        network.load_state_dict(state)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UserError(
            f"{folder}/weights.safetensors cannot be loaded ({error}); run `dvc repro -f {producer}`"
        ) from error
    return network


# --------------------------------------------------------------------------------------------------- initial weights


def load_initial(
    network: Pretrained, name: str, weights: str, imagenet: str | None, hashes: Mapping[str, str] | None = None
) -> None:
    """Load the weights that training starts from.

    Args:
        network: to fill, in place.
        name: of the network or its trunk, for messages.
        weights: imagenet, none, or the path of a state dict.
        imagenet: where its ImageNet weights come from (`models.registry.Network.imagenet`).
        hashes: SHA-256 that files of weights have, by path as the knob says it (`pipeline.run.told.TrainingTold`).

    Raises:
        UserError: the weights cannot be had, are not those that `configure` saw, or do not fit; all differences are
            listed.
    """
    if weights.lower() == "none":
        return
    if weights.lower() == "imagenet":
        state = imagenet_state(name, imagenet)
    else:
        path = expanded(weights)
        state = read_state(path)
        if hashes and sha256(path) != hashes.get(weights):
            raise UserError(f"weights {path} have changed since configure looked at them; {LOOK_AGAIN}")
    try:
        network.load_pretrained(state)
    except ValueError as error:
        raise UserError(f"weights {weights} for {name}: {error}") from error


def check_file(name: str, weights: str) -> None:
    """Find out whether a file of initial weights can be read and fits.

    Args:
        name: of the network or its trunk.
        weights: path of a state dict.

    Raises:
        UserError: it cannot be read or does not fit; all differences are listed.
    """
    if problem := misfit(name, read_state(expanded(weights))):
        raise UserError(f"weights {weights} for {name}: {problem}")


def misfit(name: str, state: State) -> str:
    """Why a state dict cannot be the initial weights of a network, or nothing; the network takes no memory."""
    with torch.device("meta"):
        network = carrier(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # counters of batches are made on the CPU, and go nowhere
        try:
            network.load_pretrained({key: value.to("meta") for key, value in state.items()})
        except ValueError as error:
            return str(error)
    return ""
