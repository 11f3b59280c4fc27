"""Weights: written with the same bytes, read from a trusted form alone, and what is said where they cannot be had."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.networks.resnet50 import ResNet50
from pipeline.run.errors import UserError
from pipeline.run.files import sha256
from pipeline.training import imagenet, weights
from pipeline.training.state_files import State, read_state
from pipeline.training.weights import load_initial, load_network, save_network
from tests.support.project import write_network

DESCRIPTION = {"network": "cam_classifier", "backbone": "efficientnet_lite0", "classes": 2}


class Filled(nn.Linear):
    """Takes any state dict of its own names, as trunks do."""

    def load_pretrained(self, state: Any) -> None:
        """Load, or say what differs."""
        try:
            self.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(str(error)) from error


def test_networks_are_read_as_written_and_bytes_repeat(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_network(tmp_path / name, DESCRIPTION)
    network = load_network(tmp_path / "one", "train_classifier")
    for file in ("weights.safetensors", "network.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()
    save_network(tmp_path / "again", network, DESCRIPTION)
    again = load_network(tmp_path / "again", "").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in network.state_dict().items())


def test_damaged_and_missing_networks_name_the_stage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro train_classifier"):
        load_network(tmp_path, "train_classifier")
    write_network(tmp_path, DESCRIPTION)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"cannot be loaded .* `dvc repro -f train_classifier`"):
        load_network(tmp_path, "train_classifier")
    write_network(tmp_path, DESCRIPTION)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"cannot be loaded \(the checksum does not fit"):
        load_network(tmp_path, "train_classifier")


@pytest.mark.parametrize("below", ["", "state_dict", "model"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_state_dicts_of_both_forms_are_read(tmp_path: Path, below: str, suffix: str) -> None:
    state, path = nn.Linear(2, 3).state_dict(), tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(state, path)
    else:
        torch.save({below: state, "epoch": 3} if below else state, path)
    network = Filled(2, 3)
    load_initial(network, "linear", str(path), None)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"path": Path()}, "cannot be read as plain tensors"),
        ({"weight": 3}, "hold no state dict"),
        ([torch.zeros(1)], "hold no state dict"),
        ({1: torch.zeros(1)}, "hold no state dict"),
        ({"weight": torch.zeros(2, 2).to_sparse()}, "hold no state dict"),
        (None, "not found; give imagenet, none, or the path"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: object, message: str) -> None:
    if content is not None:
        torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=message):
        read_state(tmp_path / "weights.pth")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty; fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "pointer of Git LFS.*git lfs pull"),
        (b"\n<!DOCTYPE html><html></html>", "it is a web page"),
        (b"PK\x03\x04 cut", "damaged, or holds objects"),
        (b"weights", "no file of PyTorch or safetensors"),
    ],
)
def test_files_that_are_no_weights_are_said_in_our_words(
    tmp_path: Path, content: bytes, words: str, suffix: str
) -> None:
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        read_state(path)
    assert "weights_only" not in str(caught.value), "a switch that does not exist here"


def test_pickled_objects_are_refused_in_our_words(tmp_path: Path) -> None:
    refused = r"it holds [\w.]+; python -m tools.convert_weights|holds objects beside tensors"
    for content in (argparse.Namespace(lr=1), {"weight": torch.ones(1), "best": np.float64(3)}):
        torch.save(content, tmp_path / "weights.pth")
        with pytest.raises(UserError, match=refused) as caught:
            read_state(tmp_path / "weights.pth")
        assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.ones(2, dtype=torch.int8), "weight is int8"),
        (torch.ones(2, dtype=torch.bool), "weight is bool"),
        (torch.ones(2).to(torch.float8_e4m3fn), "weight is float8"),
        (torch.ones(2, dtype=torch.complex64), "weight is complex64"),
        (torch.tensor([1.0, float("nan")]), "weight holds NaN or an infinity"),
        (torch.tensor([1.0, float("inf")]), "weight holds NaN or an infinity"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: torch.Tensor, words: str) -> None:
    torch.save({"a.weight": value, "a.bias": torch.ones(1), "a.counter": torch.ones(1).long()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=words):
        read_state(tmp_path / "w.pth")


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 4).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(UserError, match=re.compile("weights .* for linear: .*weight", re.DOTALL)):
        load_initial(Filled(2, 3), "linear", str(tmp_path / "weights.pth"), None)


def test_files_that_have_changed_since_configure_are_refused(tmp_path: Path) -> None:
    path, network = tmp_path / "weights.pth", Filled(2, 3)
    torch.save(nn.Linear(2, 3).state_dict(), path)
    load_initial(network, "linear", str(path), None, {str(path): sha256(path)})
    with pytest.raises(UserError, match="have changed since configure looked at them; run `dvc repro`, wh"):
        load_initial(network, "linear", str(path), None, {str(path): "0" * 64})


def test_without_weights_nothing_is_read() -> None:
    network = Filled(2, 3)
    before = network.weight.clone()
    load_initial(network, "linear", "None", "nowhere:nothing")
    assert torch.equal(network.weight, before)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "no library carries ImageNet weights of resnet38; give the path"),
        ("timm:x", r"of resnet38 cannot be fetched \(OSError: no network\); download them"),
    ],
)
def test_imagenet_weights_that_cannot_be_had(source: str | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(tag: str) -> State:
        raise OSError("no network\nat all")

    monkeypatch.setitem(imagenet.LIBRARIES, "timm", imagenet.LIBRARIES["timm"]._replace(state=fetch))
    with pytest.raises(UserError, match=message):
        load_initial(ResNet50.__new__(ResNet50), "resnet38", "imagenet", source)


def test_bundled_weights_fill_their_trunk() -> None:
    network = weights.build(DESCRIPTION)
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    load_initial(network, "efficientnet_lite0", "imagenet", "package:efficientnet_lite0")
    assert any(not torch.equal(value, before[name]) for name, value in network.backbone.state_dict().items())
