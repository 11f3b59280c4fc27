"""Networks of the affinity refinements: frozen parts, generic heads, checkpoint loading."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from models.affinity.affinitynet import AffinityNet, ResNet38Affinity
from models.affinity.irn import BoundaryBranch
from models.networks.loading import HEADS, check_and_load
from models.networks.resnet38 import ResNet38Classifier


@pytest.fixture
def on_meta() -> Iterator[None]:
    with torch.device("meta"):
        yield


@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize("kind", [ResNet38Classifier, ResNet38Affinity])
def test_frozen_parts_of_resnet38(kind: type[ResNet38Classifier | ResNet38Affinity]) -> None:
    model = kind().train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)
    assert all(module.training for module in model.modules() if isinstance(module, nn.Dropout2d))
    for name, parameter in model.named_parameters():
        first_level = name.split(".")[0] in {"conv1a", "b2", "b2_1", "b2_2"}
        assert parameter.requires_grad != (first_level or "bn" in name), name


@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize("size", [(56, 56), (61, 75), (1, 9)])
def test_output_stride_of_resnet38(size: tuple[int, int]) -> None:
    grid = tuple(-(-side // 8) for side in size)
    model = ResNet38Classifier(7)
    assert model.class_maps(torch.empty(2, 3, *size)).shape == (2, 7, *grid)
    assert model(torch.empty(2, 3, *size)).shape == (2, 7)
    assert ResNet38Affinity("published")(torch.empty(2, 3, *size)).shape == (2, 896, *grid)


def test_affinity_head_on_maps_of_several_strides() -> None:
    features = [torch.randn(2, 40, 9, 11), torch.randn(2, 112, 5, 6), torch.randn(2, 320, 3, 3)]
    model = AffinityNet([40, 112, 320], (16, 32, 64))
    feature = model(features, (9, 11))
    assert feature.shape == (2, 112, 9, 11)
    feature.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    torch.testing.assert_close(model([f[:1] for f in features], (9, 11)), feature[:1])


@pytest.mark.parametrize("widths", [(16, 32), (16, 32, 60)])
def test_widths_that_do_not_fit_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="width"):
        AffinityNet([40, 112, 320], widths)


def test_boundary_branch_on_the_grid_of_its_second_tap() -> None:
    channels, sides = (8, 16, 32, 64, 128), (16, 16, 8, 4, 4)
    model = BoundaryBranch(channels)
    taps = [torch.randn(2, c, s, 2 * s) for c, s in zip(channels, sides, strict=True)]
    logits = model(taps)
    assert logits.shape == (2, 1, 16, 32)
    torch.testing.assert_close(model([tap[1:] for tap in taps]), logits[1:])
    assert BoundaryBranch(channels, grid_tap=2)(taps).shape == (2, 1, 8, 16)


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
