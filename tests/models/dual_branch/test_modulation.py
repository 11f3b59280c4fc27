"""Activation modulation and the consistency of two branches."""

import math
from typing import Any, Literal

import pytest
import torch

from models.dual_branch.knobs import ConsistencyKnobs, GaussianKnobs, ModulationKnobs
from models.dual_branch.modulation import ActivationModulation, ModulatedClassifier, consistency_loss, gaussian_gates


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(3, 32, 6, 7, generator=torch.Generator().manual_seed(0)).relu()


def module(**knobs: Any) -> ActivationModulation:
    torch.manual_seed(0)
    return ActivationModulation(32, ModulationKnobs(**knobs)).eval()


def gates_of(values: torch.Tensor, **knobs: Any) -> torch.Tensor:
    return gaussian_gates(values, GaussianKnobs(**knobs))


def test_readings_differ_by_their_height() -> None:
    values = torch.randn(2, 5000, generator=torch.Generator().manual_seed(1)) * 3 + 2
    peak = gates_of(values)
    assert peak.max() <= 1
    assert peak.mean() == pytest.approx(2**-0.5, abs=0.01)
    torch.testing.assert_close(gates_of(values, gaussian="stdnormal"), peak / math.sqrt(2 * math.pi))
    deviation = values.std(dim=1, correction=0, keepdim=True)
    torch.testing.assert_close(gates_of(values, gaussian="pdf"), peak / math.sqrt(2 * math.pi) / deviation)
    assert gates_of(values, gate_scale=math.sqrt(2)).mean() == pytest.approx(1, abs=0.01)


def test_peak_ignores_scale_and_shift() -> None:
    values = torch.randn(2, 300, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(gates_of(-7 * values + 3), gates_of(values), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gaussian", ["peak1", "pdf", "stdnormal"])
@pytest.mark.parametrize("detach", [True, False])
def test_constant_values_have_finite_gates_and_gradients(gaussian: str, detach: bool) -> None:
    values = torch.full((2, 8), 0.4, requires_grad=True)
    gates = gates_of(values, gaussian=gaussian, detach=detach)
    gates.sum().backward()
    assert gates.isfinite().all()
    assert values.grad is not None
    assert values.grad.isfinite().all()


def test_constant_features_give_finite_gates_in_half_precision() -> None:
    values = torch.full((2, 8), 0.3, dtype=torch.float16)
    for gaussian in ("peak1", "stdnormal"):
        assert gates_of(values, gaussian=gaussian).isfinite().all()


@pytest.mark.parametrize("combine", ["serial", "parallel"])
def test_statistics_of_a_sample_ignore_the_other_images(features: torch.Tensor, combine: str) -> None:
    gates = module(combine=combine)
    torch.testing.assert_close(gates(features)[1:2], gates(features[1:2]))
    batch = module(combine=combine, statistics="batch")
    assert not torch.allclose(batch(features)[1:2], batch(features[1:2]))


def test_without_gates_nothing_changes(features: torch.Tensor) -> None:
    assert module(channel=False, spatial=False)(features) is features


def test_ways_to_combine_the_gates(features: torch.Tensor) -> None:
    serial, parallel = module(), module(combine="parallel")
    channel, spatial = parallel.channel_gate(features), parallel.spatial_gate(features)
    gated = features * channel
    torch.testing.assert_close(serial(features), gated * serial.spatial_gate(gated))
    assert not torch.allclose(serial(features), parallel(features))
    for merge, gate in (("mean", (channel + spatial) / 2), ("sum", channel + spatial), ("product", channel * spatial)):
        torch.testing.assert_close(module(combine="parallel", merge=merge)(features), features * gate)
    torch.testing.assert_close(module(residual=True)(features), features + serial(features))
    for only in ({"spatial": False}, {"channel": False}):
        torch.testing.assert_close(module(**only)(features), module(combine="parallel", **only)(features))


@pytest.mark.parametrize("combine", ["serial", "parallel"])
@pytest.mark.parametrize("reduction", [0, 16])
def test_gradients_reach_all_layers(features: torch.Tensor, combine: str, reduction: int) -> None:
    gates = module(combine=combine, reduction=reduction).train()
    gates(features).square().sum().backward()
    for name, parameter in gates.named_parameters():
        assert parameter.grad is not None, name
        if name.endswith("weight") and "spatial.1" not in name:
            assert parameter.grad.any(), name


def test_normalisation_has_an_evaluation_mode(features: torch.Tensor) -> None:
    gates = module().train()
    assert gates.spatial is not None
    before = {name: value.clone() for name, value in gates.spatial.named_buffers()}
    gates.eval()(features)
    assert all(torch.equal(value, before[name]) for name, value in gates.spatial.named_buffers())
    gates.train()(features)
    assert not torch.equal(dict(gates.spatial.named_buffers())["1.running_var"], before["1.running_var"])


def test_modulated_classifier() -> None:
    torch.manual_seed(0)
    branch = ModulatedClassifier("efficientnet_lite0", 4, ModulationKnobs(combine="parallel")).train()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(branch(images), branch.cams(images).mean((2, 3)))
    branch(images).square().sum().backward()
    assert sum(p.grad is not None and bool(p.grad.any()) for p in branch.modulations.parameters()) > 6
    stages = branch.backbone.stages()
    assert branch.frozen_stages == 1
    assert all(p.grad is None for p in branch.backbone.get_submodule("conv_stem").parameters())
    assert all(p.grad is not None for p in branch.backbone.get_submodule("blocks.1").parameters())
    plain = ModulatedClassifier("efficientnet_lite0", 4, stages=())
    assert plain.frozen_stages == 1
    assert len(stages) == len(branch.backbone.channels)


def test_modulation_needs_a_chain_of_stages() -> None:
    with torch.device("meta"), pytest.raises(TypeError, match="resnet38"):
        ModulatedClassifier("resnet38", 4)


def test_parameters_of_the_three_published_modules() -> None:
    counts = [sum(p.numel() for p in ActivationModulation(width).parameters()) for width in (256, 512, 1024)]
    assert sum(counts) == pytest.approx(174_000, rel=0.01)


# -------------------------------------------------------------------------------------------------------- consistency


def test_consistency_by_hand() -> None:
    first = torch.tensor([0.0, 1.0, 2.0, -3.0]).view(1, 1, 2, 2).repeat(1, 2, 1, 1)
    second = torch.tensor([4.0, 2.0, 2.0, 0.0]).view(1, 1, 2, 2).repeat(1, 2, 1, 1)
    tags = torch.tensor([[1.0, 0.0]])
    # Spread: 0, 1/2, 1, 0 and 1, 1/2, 1/2, 0.
    assert float(consistency_loss(first, second, tags)) == pytest.approx(1.5 / 4, abs=1e-4)
    assert float(consistency_loss(first, second, tags, ConsistencyKnobs(consistency_norm=2))) == pytest.approx(
        1.25 / 4, abs=1e-4
    )
    assert float(consistency_loss(first, second, tags, ConsistencyKnobs(consistency_spread=False))) == pytest.approx(
        5 / 4
    )


def test_consistency_of_scaled_maps_is_perfect() -> None:
    maps = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(3))
    tags = torch.ones(2, 3)
    assert float(consistency_loss(maps.relu(), 100 * maps.relu(), tags)) < 1e-4
    assert float(consistency_loss(maps, maps.flip(3), tags)) > 0.1


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("spread", [True, False])
def test_consistency_is_finite_and_pulls_on_both(norm: Literal[1, 2], spread: bool) -> None:
    knobs = ConsistencyKnobs(consistency_norm=norm, consistency_spread=spread)
    generator = torch.Generator().manual_seed(4)
    maps = torch.randn(2, 3, 5, 5, generator=generator).requires_grad_()
    others = torch.randn(2, 3, 6, 7, generator=generator).requires_grad_()
    consistency_loss(maps, others, torch.tensor([[1.0, 0, 0], [0, 0, 0]]), knobs).backward()
    for one in (maps, others):
        assert one.grad is not None
        assert one.grad[0, 0].any()
        assert not one.grad[1].any()
        assert one.grad.isfinite().all()
    negative = torch.full((1, 2, 4, 4), -1.0, requires_grad=True)
    for tags in (torch.zeros(1, 2), torch.ones(1, 2)):
        loss = consistency_loss(negative, negative.detach(), tags, knobs)
        loss.backward()
        assert loss == 0
        assert negative.grad is not None
        assert negative.grad.isfinite().all()
