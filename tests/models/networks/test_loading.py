"""Loading checkpoints: all misfits are told at once, and nothing is changed by one."""

import pytest
import torch
from torch import nn

from models.networks.loading import HEADS, check_and_load


def small() -> nn.Module:
    model = nn.Module()
    model.trunk = nn.Conv2d(3, 4, 1)
    model.bn = nn.BatchNorm2d(4)
    model.fc8 = nn.Conv2d(4, 5, 1, bias=False)
    return model


def test_loading_reports_every_kind_of_misfit() -> None:
    model = small()
    state = model.state_dict()
    before = {name: value.clone() for name, value in state.items()}
    state.update({"trunk.weight": torch.zeros(4, 3, 3, 3), "other": torch.zeros(1), "bn.bias": torch.ones(4)})
    del state["trunk.bias"], state["fc8.weight"]
    with pytest.raises(ValueError, match="does not fit") as error:
        check_and_load(model, state)
    for part in (
        "2 missing (fc8.weight, trunk.bias)",
        "1 unexpected (other)",
        "1 wrongly shaped (trunk.weight (4, 3, 3, 3) instead of (4, 3, 1, 1))",
    ):
        assert part in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_loading_shows_only_a_few_names() -> None:
    with pytest.raises(ValueError, match=r"9 unexpected \(x0, x1, x2, x3, x4, \.\.\.\)"):
        check_and_load(nn.Module(), {f"x{i}": torch.zeros(1) for i in range(9)})


def test_heads_may_differ_where_allowed() -> None:
    model, other = small(), small()
    state = {name: value + 1 for name, value in other.state_dict().items() if "num_batches" not in name}
    state["fc8.weight"] = torch.zeros(20, 4, 1, 1)
    state["f9.weight"] = torch.zeros(448, 448, 1, 1)
    kept = model.get_parameter("fc8.weight").clone()
    assert check_and_load(model, state, HEADS) == ["bn.num_batches_tracked", "fc8.weight"]
    assert torch.equal(model.get_parameter("fc8.weight"), kept)
    assert torch.equal(model.get_parameter("trunk.bias"), state["trunk.bias"])
