"""Names of other programs: what they call the weights of a network becomes the network's own names."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import Tensor

from models.networks.conformer import CONFORMERS, Conformer
from models.networks.renaming import data_parallel, renamed
from models.networks.resnet38 import ResNet38
from tests.support import GOLDEN


def numbered(names: list[str]) -> dict[str, Tensor]:
    return {name: torch.tensor(number) for number, name in enumerate(names)}


def of_openmmlab(name: str) -> str:
    """What mmpretrain calls a weight of the official Conformer."""
    if "cls_head" in name:
        return f"head.{name}"
    for ours, theirs in (
        ("norm1", "ln1"),
        ("norm2", "ln2"),
        ("mlp.fc1", "ffn.layers.0.0"),
        ("mlp.fc2", "ffn.layers.1"),
    ):
        name = re.sub(rf"(trans_1|trans_block)\.{re.escape(ours)}\.", rf"\1.{theirs}.", name)
    return f"backbone.{name}"


def test_openmmlabs_conformer_gets_the_official_names() -> None:
    official = list(json.loads((GOLDEN / "conformer_s_manifest.json").read_text())["conformer_small_patch16"])
    theirs = [of_openmmlab(name) for name in official]
    assert "backbone.conv_trans_5.trans_block.ffn.layers.0.0.weight" in theirs and "head.conv_cls_head.bias" in theirs
    assert renamed(numbered(theirs)) == numbered(official)


def of_mxnet(name: str) -> str | None:
    """What the authors of ResNet-38 call a weight of it; None for what MXNet does not have."""
    place, _, what = name.rpartition(".")
    if what == "num_batches_tracked":
        return None
    if name == "conv1a.weight":
        return "arg:conv1a_weight"
    kinds = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_var"}
    store = "aux" if what.startswith("running") else "arg"
    if place == "bn7":
        return f"{store}:bn7_{kinds[what]}"
    block, layer = place.split(".")
    level, _, number = block.removeprefix("b").partition("_")
    kind, branch = layer.split("_")
    block = f"{level}b{number}" if number else f"{level}a"
    return f"{store}:{'res' if kind == 'conv' else 'bn'}{block}_{branch}_{'weight' if kind == 'conv' else kinds[what]}"


def test_mxnets_resnet38_gets_the_names_of_psa() -> None:
    with torch.device("meta"):
        state = ResNet38().state_dict()
    theirs = {of_mxnet(name): value for name, value in state.items() if of_mxnet(name)}
    assert {"arg:res2b1_branch2a_weight", "aux:bn5a_branch2b1_moving_var", "arg:res6a_branch1_weight"} <= theirs.keys()
    theirs |= {"arg:linear1000_weight": torch.empty(1000, 4096), "arg:linear1000_bias": torch.empty(1000)}
    found = renamed({str(name): value for name, value in theirs.items()})
    expected = {name: value.shape for name, value in state.items() if "num_batches" not in name}
    assert {name: value.shape for name, value in found.items()} == expected


def test_prefixes_of_data_parallel_go() -> None:
    names = ["conv1.weight", "module.inner.weight"]
    assert data_parallel(numbered([f"module.{name}" for name in names])) == numbered(names)
    assert data_parallel(numbered(names)) == numbered(names), "a part may be called module"


@pytest.mark.parametrize("prefix", ["", "module."])
def test_official_names_stay(prefix: str) -> None:
    with torch.device("meta"):
        state = Conformer(CONFORMERS["conformer_tiny"]).state_dict()
    assert renamed({prefix + name: value for name, value in state.items()}).keys() == state.keys()
