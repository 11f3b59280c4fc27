"""ImageNet weights of libraries: from the cache without a network; refused at once where they are not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from pipeline.run.errors import UserError
from pipeline.training import imagenet
from pipeline.training.imagenet import fetch_imagenet, imagenet_state

RESNET18, RESNET101 = "timm:resnet18.tv_in1k", "torchvision:ResNet101_Weights.IMAGENET1K_V1"


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Empty caches and no network; what was asked for."""
    urls: list[str] = []

    def no_network(request: Any, timeout: float) -> None:
        urls.append(request.full_url)
        raise URLError("no network")

    monkeypatch.setattr(imagenet, "urlopen", no_network)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return urls


@pytest.mark.parametrize("source", [RESNET18, RESNET101])
def test_without_network_they_are_refused_at_once(source: str, asked: list[str]) -> None:
    with pytest.raises(
        UserError, match=r"of resnet cannot be fetched \(OSError: .* cannot be reached, and .* does not"
    ):
        fetch_imagenet("resnet", source)
    assert len(asked) == 1 and asked[0].startswith("https://")


@pytest.mark.parametrize("source", [RESNET18, RESNET101])
def test_nothing_is_asked_for_offline(source: str, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set, and .* does not have https://"):
        fetch_imagenet("resnet", source)
    assert not asked


def test_servers_that_answer_are_left_to_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def forbidden(request: Any, timeout: float) -> None:
        raise HTTPError(request.full_url, 403, "no heads", None, None)  # type: ignore[arg-type]

    monkeypatch.setattr(imagenet, "urlopen", forbidden)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda place, name: f"{place}/{name}")
    assert fetch_imagenet("resnet", RESNET18) == Path("timm/resnet18.tv_in1k/model.safetensors")


def test_timm_weights_come_from_the_cache(tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    state = timm.create_model("resnet18", pretrained=False).state_dict()
    repository = tmp_path / "hub/models--timm--resnet18.tv_in1k"
    (repository / "snapshots/abc").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("abc")
    save_file(state, path := repository / "snapshots/abc/model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_imagenet("resnet", RESNET18) == path
    found = imagenet_state("resnet", RESNET18)
    assert found.keys() == state.keys() and all(torch.equal(found[name], value) for name, value in state.items())
    assert not asked


def test_torchvision_weights_come_from_the_cache(tmp_path: Path, asked: list[str]) -> None:
    path = tmp_path / "torch/hub/checkpoints/resnet101-63fe2227.pth"
    path.parent.mkdir(parents=True)
    torch.save({"one": torch.ones(2)}, path)
    assert fetch_imagenet("resnet", RESNET101) == path
    assert torch.equal(imagenet_state("resnet", RESNET101)["one"], torch.ones(2)) and not asked


def test_packages_need_no_network(asked: list[str]) -> None:
    assert fetch_imagenet("lite0", "package:efficientnet_lite0").is_file() and not asked
