"""Weights of other programs become plain ones that a network loads; nothing in their files is executed."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models.build import carrier
from models.networks.conformer import CONFORMERS, Conformer
from pipeline.run.errors import UserError
from pipeline.training.state_files import read_state
from pipeline.training.weights import check_file
from tests.models.networks.test_renaming import of_mxnet, of_openmmlab
from tests.support.mxnet import write_params
from tools import convert_weights
from tools.convert_weights import convert, fitting


def conformer() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return Conformer(CONFORMERS["conformer_tiny"], outputs=10).state_dict()


def same(found: Any, expected: Any) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("form", ["plain", "script", "parallel", "openmmlab", "old format"])
def test_checkpoints_of_training_scripts(form: str, tmp_path: Path) -> None:
    state = conformer()
    content: dict[str, Any] = dict(state)
    if form == "script":
        arguments = argparse.Namespace(lr=0.1, data_set="IMNET", inner=argparse.Namespace(names=["a"]))
        content = {"model": state, "optimizer": {"state": {}}, "epoch": 299, "args": arguments}
    elif form == "parallel":
        content = {"state_dict": {f"module.{name}": value for name, value in state.items()}}
    elif form == "openmmlab":
        content = {"meta": {"epoch": 300}, "state_dict": {of_openmmlab(name): value for name, value in state.items()}}
    source, target = tmp_path / "theirs.pth", tmp_path / "ours.safetensors"
    torch.save(content, source, _use_new_zipfile_serialization=form != "old format")
    convert(source, target)
    assert same(load_file(target), state) and fitting(load_file(target)) == ["conformer_tiny"]
    check_file("conformer_tiny", str(target))


def test_arguments_of_scripts_are_taken_by_the_converter_alone(tmp_path: Path) -> None:
    torch.save({"model": conformer(), "args": argparse.Namespace()}, tmp_path / "theirs.pth")
    with pytest.raises(
        UserError, match=r"theirs\.pth .* holds argparse\.Namespace; python -m tools\.convert_weights IN"
    ):
        read_state(tmp_path / "theirs.pth")


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


@pytest.mark.parametrize("place", ["beside", "inside"])
def test_nothing_is_executed(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = Malicious() if place == "beside" else argparse.Namespace(lr=Malicious())
    torch.save({"model": conformer(), "args": arguments}, "theirs.pth")
    refused = r"theirs\.pth cannot be read as plain tensors: it holds [\w.]+; save the state dict alone"
    with pytest.raises(UserError, match=refused):
        convert(Path("theirs.pth"), Path("ours.safetensors"))
    Path("plain.pth").write_bytes(pickle.dumps(arguments))
    with pytest.raises(UserError, match=r"plain\.pth cannot be read as plain tensors"):
        convert(Path("plain.pth"), Path("ours.safetensors"))
    assert {path.name for path in Path().iterdir()} == {"theirs.pth", "plain.pth"}


def test_resnet38_of_mxnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    state = {name: torch.zeros(()).expand(value.shape) for name, value in meta("resnet38").items()}
    theirs = {of_mxnet(name): value.numpy() for name, value in state.items() if of_mxnet(name)}
    write_params(tmp_path / "a1.params", {str(name): array for name, array in theirs.items()}, version=0)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["convert_weights", "~/a1.params", "~/resnet38.safetensors"])
    convert_weights.main()
    assert "it fits resnet38, deeplabv1_resnet38, two_convolutions_resnet38\n" in capsys.readouterr().out
    check_file("resnet38", "~/resnet38.safetensors")
    with pytest.raises(UserError, match="does not fit the model"):
        check_file("resnet50", "~/resnet38.safetensors")


def meta(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        state: dict[str, Tensor] = carrier(name).backbone.state_dict()
    return state


@pytest.mark.parametrize("name", ["theirs.pth", "theirs.params", "theirs.safetensors"])
def test_damaged_files_are_one_line_with_their_path(name: str, tmp_path: Path) -> None:
    source, target = tmp_path / name, tmp_path / "ours.safetensors"
    target.write_bytes(b"of before")
    for content in (b"", b"nothing of the kind", None):
        source.unlink() if content is None else source.write_bytes(content)
        with pytest.raises(UserError, match=name) as caught:
            convert(source, target)
        assert "\n" not in str(caught.value)
    assert target.read_bytes() == b"of before"


def test_the_result_is_safetensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["convert_weights", "in.pth", "out.pth"])
    with pytest.raises(UserError, match=r"out\.pth: the name of the result ends in \.safetensors"):
        convert_weights.main()
