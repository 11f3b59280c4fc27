"""ESOL: which parameters learn when, maps of one pass, losses that cannot run away."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models.cam.classifier import CamClassifier, tag_loss
from models.esol.knobs import EsolLossKnobs, SamplingKnobs
from models.esol.network import SAMPLERS, EsolNetwork, SamplerName, area_loss, esol_loss, inverse_tag_loss
from models.registry import BACKBONES
from tests.support.knobs import words_of
from tests.support.tiny_networks import TINY

CLASSES = 3
Kernel = Literal["dirac", "trained"]
KERNELS = words_of(SamplingKnobs, "kernel")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    torch.manual_seed(0)


def esol_network(displaced: bool = False, **form: Any) -> EsolNetwork:
    """A network on an untrained classifier; displaced: its offset branches know more than 0."""
    description = {"network": "cam_classifier", "backbone": "tiny", "classes": CLASSES}
    network = EsolNetwork(description, form)
    if displaced:
        for sampler in (network.expansion, network.shrinkage):
            nn.init.normal_(sampler.branch.weight)
            nn.init.normal_(torch.as_tensor(sampler.branch.bias))
    return network


def example(batch: int = 2, height: int = 24, width: int = 32) -> tuple[Tensor, Tensor]:
    """Images, and tags with present and absent classes."""
    return 3 * torch.randn(batch, 3, height, width), torch.eye(CLASSES)[torch.arange(batch) % CLASSES]


# ------------------------------------------------------------------------------------------------------------- network


def with_gradient(network: nn.Module, loss: Tensor) -> set[str]:
    """Names of the parameters that a loss reaches, when all may learn."""
    network.zero_grad()
    loss.backward(retain_graph=True)
    return {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("which", SAMPLERS)
def test_gradients_reach_what_the_detach_marks_allow(kernel: Kernel, which: SamplerName) -> None:
    network, (images, tags) = esol_network(displaced=True, kernel=kernel, clip="none").train(), example()
    network.requires_grad_(True)  # the marks hold without `learn`
    outputs = network(images.requires_grad_(), which)
    branch = {f"{which}.branch.weight", f"{which}.branch.bias"}
    total, terms = esol_loss(outputs._replace(fitted=None), tags, which, EsolLossKnobs())
    assert with_gradient(network, total) == branch
    if which == "shrinkage":
        assert with_gradient(network, terms["area"]) == branch == with_gradient(network, terms["tags"])
    if kernel == "trained":
        total, terms = esol_loss(outputs, tags, which, EsolLossKnobs())
        assert with_gradient(network, terms["kernel"]) == {f"{which}.weight"}
        assert with_gradient(network, total) == branch | {f"{which}.weight"}
    else:
        assert outputs.fitted is None
    assert images.grad is None


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_offset_branch_follows_the_inverse_loss_and_the_kernel_the_ordinary_one(kernel: Kernel) -> None:
    network, (images, tags) = esol_network(kernel=kernel, clip="none").train(), example()
    network.learn("expansion")
    knobs = EsolLossKnobs(inverse_over="all", ceiling=100.0)
    before = tag_loss(network.all_maps(images)[1].mean((2, 3)), tags)
    optimiser = torch.optim.SGD(network.expansion.branch.parameters(), lr=0.05)
    for _ in range(20):
        total, _ = esol_loss(network(images, "expansion"), tags, "expansion", knobs)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    after = tag_loss(network.all_maps(images)[1].mean((2, 3)), tags)
    assert after > before
    if kernel == "trained":
        kernels = torch.optim.SGD([p for n, p in network.expansion.named_parameters() if n == "weight"], lr=0.01)
        losses = []
        for _ in range(5):
            total, terms = esol_loss(network(images, "expansion"), tags, "expansion", knobs)
            network.zero_grad()
            total.backward()
            kernels.step()
            losses.append(terms["kernel"].item())
        assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("which", SAMPLERS)
def test_learn_shows_the_optimiser_one_stage(kernel: Kernel, which: SamplerName) -> None:
    network = esol_network(kernel=kernel)
    parts = ["weight"] if kernel == "trained" else []
    expected = {f"{which}.{name}" for name in [*parts, "branch.weight", "branch.bias"]}
    for order in (SAMPLERS, SAMPLERS[::-1], (which,)):
        for each in order:
            network.learn(each)
    assert {name for name, p in network.named_parameters() if p.requires_grad} == expected
    assert set(network.learning(which)) == expected


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kernel", KERNELS)
def test_all_stages_start_exactly_at_the_cam_baseline(kernel: Kernel, memory: torch.memory_format) -> None:
    network, (images, tags) = esol_network(kernel=kernel, clip="none").eval(), example()
    network.to(memory_format=memory)
    images = images.contiguous(memory_format=memory)
    baseline = network.base.activations(images, tags).classes
    assert baseline.any()
    for maps in network.all_maps(images):
        assert torch.equal(maps, baseline)
    for which in SAMPLERS:
        assert torch.equal(network.train()(images, which).maps, baseline)  # no dropout in a frozen classifier
    with torch.autocast("cpu", dtype=torch.bfloat16):
        baseline = network.base.activations(images, tags).classes
        assert all(torch.equal(maps, baseline) for maps in network.all_maps(images))


@pytest.mark.parametrize("kernel", KERNELS)
def test_stages_of_one_pass_are_those_of_training_and_of_inference(kernel: Kernel) -> None:
    network, (images, tags) = esol_network(displaced=True, kernel=kernel, clip="quantile", clip_level=0.7), example()
    first, second, third = network.eval().all_maps(images)
    torch.testing.assert_close(network(images, "expansion").maps, second)
    torch.testing.assert_close(network(images, "shrinkage").maps, third)
    assert not torch.allclose(first, second) and not torch.allclose(second, third)
    activations = network.activations(images, tags)
    assert torch.equal(activations.classes, third) and activations.background is None
    assert torch.equal(activations.earlier["baseline"], first)
    assert torch.equal(activations.earlier["expansion"], second)
    assert first.shape == (2, CLASSES, 24 // network.stride, 32 // network.stride)


def test_shrinkage_reads_the_clipped_output_of_expansion() -> None:
    network, (images, _) = esol_network(displaced=True, clip="const", clip_level=0.05), example()
    features = network.base.eval().backbone(images)[-1]
    expanded = network.expansion(features, network.expansion.offsets(features)).clamp(max=0.05)
    sampled = network.shrinkage(expanded, network.shrinkage.offsets(expanded))
    torch.testing.assert_close(network(images, "shrinkage").maps, network.base.head(sampled))
    for ours, theirs in zip(
        network.offsets(images),
        (network.expansion.offsets(features), network.shrinkage.offsets(expanded)),
        strict=True,
    ):
        assert torch.equal(ours, theirs) and ours.any() and not ours.requires_grad


def test_other_classifiers_are_refused() -> None:
    with pytest.raises(ValueError, match="needs a convolutional classifier"):
        EsolNetwork({"network": "transcam", "size": "conformer_tiny", "classes": 2}, {})


def test_esol_loads_a_real_classifier() -> None:
    trained = CamClassifier("efficientnet_lite0", 2).eval()
    description = {"network": "cam_classifier", "backbone": "efficientnet_lite0", "classes": 2}
    images, tags = torch.randn(1, 3, 64, 96), torch.ones(1, 2)
    network = EsolNetwork(description, {"kernel": "dirac", "clip": "none"}).eval()
    network.base.load_state_dict(trained.state_dict())
    assert network.stride == 16 and network.backbone.mean == trained.backbone.mean
    assert torch.equal(network.activations(images, tags).classes, trained.activations(images, tags).classes)
    again = EsolNetwork(description, {"kernel": "dirac", "clip": "none"})
    again.load_state_dict(network.state_dict())


# -------------------------------------------------------------------------------------------------------------- losses


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([0.0, 1.0, 1e4]),
    over=st.sampled_from(["all", "present"]),
    area=st.sampled_from(["max", "sigmoid"]),
    ceiling=st.floats(0.01, 10),
)
def test_losses_keep_their_ranges(
    seed: int, size: float, over: Literal["all", "present"], area: Literal["max", "sigmoid"], ceiling: float
) -> None:
    torch.manual_seed(seed)
    maps, tags = size * torch.randn(3, 4, 5, 5), torch.randint(0, 2, (3, 4)).float()
    knobs = EsolLossKnobs(inverse_over=over, area=area, ceiling=ceiling)
    assert -ceiling * (1 + 1e-5) <= inverse_tag_loss(maps.mean((2, 3)), tags, knobs) <= 0
    assert 0 <= area_loss(maps, tags, knobs) <= 1 + 1e-6


def test_inverse_loss_below_its_ceiling_is_the_negative_tag_loss() -> None:
    logits, tags = torch.randn(3, 4), torch.eye(4)[:3]
    torch.testing.assert_close(
        inverse_tag_loss(logits, tags, EsolLossKnobs(inverse_over="all", ceiling=100.0)), -tag_loss(logits, tags)
    )
    present = inverse_tag_loss(logits, tags, EsolLossKnobs(inverse_over="present", ceiling=100.0))
    torch.testing.assert_close(present, logits[tags.bool()].sigmoid().log().mean())


def test_terms_above_the_ceiling_push_no_further() -> None:
    logits = torch.tensor([[-1.0, 1.0]], requires_grad=True)
    loss = inverse_tag_loss(logits, torch.ones(1, 2), EsolLossKnobs(ceiling=math.log(2)))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[0, 0] == 0 and gradient[0, 1] > 0  # gradient descent lowers only the confident class


def test_area_counts_present_classes_alone() -> None:
    maps = torch.tensor([[[4.0, 2.0], [0.0, -9.0]], [[5.0, 5.0], [5.0, 5.0]]])[None]
    tags = torch.tensor([[1.0, 0.0]])
    torch.testing.assert_close(
        area_loss(maps, tags, EsolLossKnobs(area="max")), torch.tensor(1.5 / 4), atol=1e-4, rtol=0
    )
    sigmoid = area_loss(maps, tags, EsolLossKnobs(area="sigmoid"))
    torch.testing.assert_close(sigmoid, maps[0, 0].sigmoid().mean())
    none = area_loss(maps.requires_grad_(), torch.zeros(1, 2), EsolLossKnobs())
    none.backward()
    assert none == 0


def test_salient_cells_cost_no_area() -> None:
    maps, tags = torch.tensor([[[4.0, 2.0], [0.0, 4.0]]])[None], torch.ones(1, 1)
    saliency = torch.zeros(1, 4, 4)
    knobs = EsolLossKnobs(area="max")
    torch.testing.assert_close(area_loss(maps, tags, knobs, saliency), area_loss(maps, tags, knobs))
    saliency[:, :2, :2] = 1
    torch.testing.assert_close(
        area_loss(maps, tags, knobs, saliency), torch.tensor(1.5 / 4), atol=1e-4, rtol=0, msg="the first cell is free"
    )
    assert area_loss(maps, tags, knobs, torch.ones(1, 4, 4)) == 0


def test_terms_and_weights() -> None:
    network, (images, tags) = esol_network(displaced=True, kernel="trained"), example()
    knobs = EsolLossKnobs(inverse_weight=3.0, area_weight=0.5)
    total, terms = esol_loss(network(images, "expansion"), tags, "expansion", knobs)
    assert set(terms) == {"inverse", "kernel"}
    torch.testing.assert_close(total, 3 * terms["inverse"] + terms["kernel"])
    total, terms = esol_loss(network(images, "shrinkage"), tags, "shrinkage", knobs)
    assert set(terms) == {"tags", "area", "kernel"}
    torch.testing.assert_close(total, terms["tags"] + 0.5 * terms["area"] + terms["kernel"])


@pytest.mark.parametrize("wrong", [{"inverse_weight": -1.0}, {"area_weight": -0.1}, {"ceiling": 0.0}])
def test_impossible_losses_are_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        EsolLossKnobs(**wrong)


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_runs_away_in_a_thousand_adversarial_steps(kernel: Kernel) -> None:
    """Plain gradient descent with an absurd rate, no clipping of gradients, on images that never change."""
    network, (images, tags) = esol_network(kernel=kernel, reach=1.5, clip="none").train(), example(height=12, width=16)
    knobs = EsolLossKnobs(inverse_weight=5.0, ceiling=2.0)
    features = network.base.backbone(images)[-1]
    logits = network.base.head(features).abs().amax() * (9 if kernel == "trained" else 1)
    for which in SAMPLERS:
        optimiser = torch.optim.SGD(network.get_submodule(which).get_submodule("branch").parameters(), lr=100.0)
        for _ in range(1000 if which == "expansion" else 200):
            outputs = network(images, which)
            total, terms = esol_loss(outputs, tags, which, knobs)
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
            assert torch.isfinite(total) and outputs.maps.abs().amax() <= logits
            assert which == "shrinkage" or -knobs.ceiling <= terms["inverse"] <= 0
    for offsets in network.offsets(images):
        assert torch.isfinite(offsets).all() and offsets.any() and offsets.abs().max() <= 1.5
    assert all(torch.isfinite(p).all() for p in network.parameters())


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("which", SAMPLERS)
def test_a_step_in_mixed_precision(device: str, kernel: Kernel, which: SamplerName) -> None:
    network, (images, tags) = esol_network(displaced=True, kernel=kernel).to(device).train(), example()
    network.learn(which)
    exact = network.all_maps(images.to(device))
    with torch.autocast(device, dtype=torch.bfloat16):
        total, _ = esol_loss(network(images.to(device), which), tags.to(device), which, EsolLossKnobs())
        half = network.all_maps(images.to(device))
    total.backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()
    for ours, theirs in zip(half, exact, strict=True):
        assert (ours.float() - theirs).abs().mean() < 0.1 * theirs.abs().mean() + 0.05
