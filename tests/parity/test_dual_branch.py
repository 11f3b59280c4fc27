"""Activation modulation against arrays computed with the released program of AMR."""

from pathlib import Path

import pytest
import torch
from torch import nn

from models.dual_branch.knobs import ModulationKnobs
from models.dual_branch.modulation import ActivationModulation
from tests.support.golden_files import File, close, golden, load, near, tensors

PARAMETERS = {
    "ChannelAMM__mlp__1": "channel.0",
    "ChannelAMM__mlp__3": "channel.2",
    "SpatialAMM__spatial__conv": "spatial.0",
    "SpatialAMM__spatial__bn": "spatial.1",
}


def own_name(theirs: str) -> str:
    module, entry = theirs.rsplit("__", 1)
    return f"{PARAMETERS[module]}.{entry}"


def modulation(file: File) -> ActivationModulation:
    """The released module with the parameters of the file."""
    released = ModulationKnobs(gaussian="pdf", statistics="batch", unbiased=True, reduction=int(file["reduction"]))
    module = ActivationModulation(file["x"].shape[1], released)
    state = {own_name(name[6:]): torch.from_numpy(file[name]) for name in file if name.startswith("param_")}
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    norm = normalisation(module)
    norm.eps, norm.momentum = float(file["bn_eps"]), float(file["bn_momentum"])
    return module


def normalisation(module: ActivationModulation) -> nn.BatchNorm2d:
    assert module.spatial is not None
    assert isinstance(module.spatial[1], nn.BatchNorm2d)
    return module.spatial[1]


@pytest.mark.parametrize("path", golden("amr_amm_"))
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_activation_modulation(path: Path, mode: str) -> None:
    file = load(path)
    x, grad_output = tensors(file, "x", "grad_output")
    x.requires_grad_()
    for name in ("channel", "spatial"):
        module = modulation(file).train(mode == "train")
        gate = getattr(module, f"{name}_gate")(x)
        near(x * gate, file[f"{name}_gate_out_{mode}"], 1e-5)
    module = modulation(file).train(mode == "train")
    out = module(x)
    near(out, file[f"amm_out_{mode}"], 1e-5)
    (out * grad_output).sum().backward()
    assert x.grad is not None
    near(x.grad, file[f"grad_x_{mode}"], 1e-4)
    for name in ("running_mean", "running_var"):
        close(normalisation(module).get_buffer(name), file[f"bn_{name}_after_{mode}"], 1e-5)
    if mode == "train":
        parameters = dict(module.named_parameters())
        names = [name for name in file if name.startswith("grad_") and "AMM" in name]
        assert {own_name(name[5:]) for name in names} == parameters.keys()
        for name in names:
            gradient = parameters[own_name(name[5:])].grad
            assert gradient is not None
            near(gradient, file[name], 1e-4)
