"""ESOL: bounds, samplers, clipping, which parameters learn when, losses that cannot run away."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from models.cam.classifier import CamClassifier, tag_loss
from models.esol.network import STAGES, EsolLossForm, EsolNetwork, Stage, area_loss, esol_loss, inverse_tag_loss
from models.esol.sampling import (
    Clip,
    Kernel,
    Sampler,
    SamplingForm,
    bilinear_gather,
    bound_offsets,
    clip_features,
    sampled_positions,
)
from models.networks.backbones import BACKBONES, Backbone

CLASSES = 3
KERNELS: tuple[Kernel, ...] = get_args(Kernel)


class Tiny(Backbone):
    """Two layers of stride 4, whose features are as rough as noise."""

    channels, strides = (6, 8), (2, 4)
    mean = std = (0.5, 0.5, 0.5)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 2, stride=2)
        self.second = nn.Sequential(nn.Conv2d(6, 8, 2, stride=2), nn.Dropout(0.5))

    def forward(self, images: Tensor) -> list[Tensor]:
        first = self.first(images).relu()
        return [first, self.second(first).relu()]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "tiny", Tiny)
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


# ------------------------------------------------------------------------------------------------------------- offsets


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    side=st.sampled_from([1, 3]),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    reach=st.floats(0.1, 10),
    size=st.sampled_from([0.0, 1e-3, 1.0, 1e3, 1e30]),
)
def test_offsets_stay_within_reach_and_on_the_grid(
    seed: int, side: int, height: int, width: int, reach: float, size: float
) -> None:
    torch.manual_seed(seed)
    offsets = bound_offsets(size * torch.randn(2, 2 * side**2, height, width), reach)
    assert offsets.abs().max() <= reach * (1 + 1e-6)
    cells = [(row, column) for row in range(height) for column in range(width)]
    positions = sampled_positions(offsets, cells, 1) - 0.5
    start = sampled_positions(torch.zeros_like(offsets), cells, 1) - 0.5
    for axis, last in ((0, height - 1), (1, width - 1)):
        assert (positions[..., axis] >= start[..., axis].clamp(max=0) - 1e-5).all()
        assert (positions[..., axis] <= start[..., axis].clamp(min=last) + 1e-5).all()


def test_offsets_start_at_zero_with_slope_one() -> None:
    raw = torch.zeros(1, 18, 4, 5, requires_grad=True)
    offsets = bound_offsets(raw, 1.5)
    offsets.sum().backward()
    assert not offsets.any() and raw.grad is not None and torch.equal(raw.grad, torch.ones_like(raw))


def test_far_displacements_keep_a_gradient() -> None:
    raw = torch.full((1, 2, 9, 9), 3.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(bound_offsets(raw, 1.0).sum(), raw)
    assert (gradient[..., 2:-2, 2:-2] > 0).all()


def test_huge_branches_saturate_without_nan() -> None:
    raw = torch.tensor([torch.inf, -torch.inf]).repeat(1, 9)[..., None, None].expand(1, 18, 7, 7)
    assert bound_offsets(raw, 2.0)[0, :, 3, 3].tolist() == [2.0, -2.0] * 9


def test_sixteen_bits_give_full_precision_offsets() -> None:
    raw = torch.randn(1, 2, 4, 4)
    offsets = bound_offsets(raw.bfloat16(), 2.0)
    assert offsets.dtype == torch.float32
    torch.testing.assert_close(offsets, bound_offsets(raw, 2.0), atol=0.02, rtol=0)


def test_sampled_positions_in_pixels() -> None:
    zero = torch.zeros(1, 2, 4, 6)
    assert sampled_positions(zero, [(0, 0), (3, 5)], 16).tolist() == [[[[8, 8]], [[56, 88]]]]
    moved = zero.clone()
    moved[0, :, 3, 5] = torch.tensor([-0.5, -2.0])
    assert sampled_positions(moved, [(3, 5), (0, 0)], 16).tolist() == [[[[48, 56]], [[8, 8]]]]
    taps = sampled_positions(torch.zeros(1, 18, 4, 6), [(1, 2)], 2)
    assert taps.shape == (1, 1, 9, 2)
    assert taps[0, 0].tolist() == [[y, x] for y in (1, 3, 5) for x in (3, 5, 7)]


# ------------------------------------------------------------------------------------------------------------ samplers


def dirac(channels: int) -> Tensor:
    return nn.init.dirac_(torch.empty(channels, channels, 3, 3))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 6), width=st.integers(1, 6), reach=st.floats(0.1, 4))
def test_gather_is_the_deformable_convolution_with_a_dirac_kernel(
    seed: int, height: int, width: int, reach: float
) -> None:
    torch.manual_seed(seed)
    features, kernel = torch.randn(2, 5, height, width), dirac(5)
    raw = torch.randn(2, 2, height, width)
    offsets = bound_offsets(raw, reach).requires_grad_()
    all_taps = torch.cat([torch.randn(2, 8, height, width), offsets, torch.randn(2, 8, height, width)], 1)
    gathered, convolved = bilinear_gather(features, offsets), deform_conv2d(features, all_taps, kernel, padding=1)
    torch.testing.assert_close(gathered, convolved, rtol=1e-4, atol=1e-5)
    weights = torch.randn_like(gathered)
    (ours,) = torch.autograd.grad((weights * gathered).sum(), offsets)
    (theirs,) = torch.autograd.grad((weights * convolved).sum(), offsets)
    edge = torch.tensor([height - 1, width - 1])[:, None, None]
    at = sampled_positions(offsets, [(y, x) for y in range(height) for x in range(width)], 1) - 0.5
    inner = (at.view(2, height, width, 2).permute(0, 3, 1, 2) < edge) & (height > 1) & (width > 1)
    torch.testing.assert_close(ours[inner], theirs[inner], rtol=1e-3, atol=1e-4)


def test_gather_without_offsets_is_the_input() -> None:
    for height, width in ((1, 1), (1, 7), (33, 47)):
        features = 100 * torch.randn(2, 5, height, width)
        assert torch.equal(bilinear_gather(features, torch.zeros(2, 2, height, width)), features)


def test_gather_of_a_ramp_gives_the_position() -> None:
    ramp = torch.stack(torch.meshgrid(torch.arange(6.0), torch.arange(7.0), indexing="ij"))[None]
    offsets = bound_offsets(torch.randn(1, 2, 6, 7), 3.0)
    torch.testing.assert_close(bilinear_gather(ramp, offsets), ramp + offsets)


def test_cells_of_the_last_row_learn_to_move_inwards() -> None:
    ramp = torch.arange(5.0).view(1, 1, 5, 1).expand(1, 1, 5, 4)
    offsets = torch.zeros(1, 2, 5, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(bilinear_gather(ramp, offsets).sum(), offsets)
    assert torch.equal(gradient[:, 0], torch.ones(1, 5, 4))


@pytest.mark.parametrize("kernel", KERNELS)
def test_samplers_start_as_the_identity(kernel: Kernel) -> None:
    sampler, features = Sampler(8, SamplingForm(kernel)), torch.randn(2, 8, 5, 7)
    offsets = sampler.offsets(features)
    assert offsets.shape == (2, {"dirac": 2, "trained": 18}[kernel], 5, 7) and not offsets.any()
    assert torch.equal(sampler(features, offsets), features)


@pytest.mark.parametrize("kernel", KERNELS)
def test_samplers_compute_in_full_precision_under_autocast(kernel: Kernel) -> None:
    sampler, features = Sampler(8, SamplingForm(kernel, reach=1.0)), torch.randn(2, 8, 5, 7)
    nn.init.normal_(sampler.branch.weight)
    exact = sampler(features, sampler.offsets(features))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = sampler(features.bfloat16(), sampler.offsets(features.bfloat16()))
        assert half.dtype == torch.float32
        assert torch.equal(sampler(features, sampler.offsets(features).zero_()), features)
    assert (half - exact).abs().mean() < 0.05


# ------------------------------------------------------------------------------------------------------------ clipping


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), clip=st.sampled_from(get_args(Clip)), level=st.floats(0.01, 1), cells=st.integers(1, 9)
)
def test_clipping_only_lowers_and_twice_is_once(seed: int, clip: Clip, level: float, cells: int) -> None:
    torch.manual_seed(seed)
    features, form = torch.randn(2, 4, cells, 3).relu(), SamplingForm(clip=clip, clip_level=level)
    clipped = clip_features(features, form)
    assert (clipped <= features).all() and clipped.shape == features.shape
    assert torch.equal(torch.minimum(features, clipped.amax((2, 3), keepdim=True)), clipped)
    if clip in ("none", "const", "quantile"):
        assert torch.equal(clip_features(clipped, form), clipped)


def test_clipping_forms() -> None:
    features = torch.arange(10.0).view(1, 1, 2, 5)

    def top(clip: Clip, level: float) -> float:
        return clip_features(features, SamplingForm(clip=clip, clip_level=level)).max().item()

    assert (top("none", 0.5), top("const", 2.5), top("maxfrac", 0.5)) == (9, 2.5, 4.5)
    assert (top("quantile", 0.7), top("quantile", 1.0), top("quantile", 0.01)) == (6, 9, 0)
    assert clip_features(features.half(), SamplingForm(clip="quantile", clip_level=0.5)).dtype == torch.float16


def test_clipped_cells_get_no_gradient() -> None:
    features = torch.rand(1, 2, 4, 4, requires_grad=True)
    for clip in ("const", "maxfrac", "quantile"):
        clipped = clip_features(features, SamplingForm(clip=clip, clip_level=0.5))
        (gradient,) = torch.autograd.grad(clipped.sum(), features)
        assert not gradient[clipped < features].any() and (gradient[clipped == features] > 0).all()
        assert (clipped < features).any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"reach": 0.0},
        {"clip_level": 0.0},
        {"clip": "quantile", "clip_level": 1.1},
        {"clip": "maxfrac", "clip_level": 2},
    ],
)
def test_impossible_samplers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        SamplingForm(**wrong)


# ------------------------------------------------------------------------------------------------------------- network


def with_gradient(network: nn.Module, loss: Tensor) -> set[str]:
    """Names of the parameters that a loss reaches, when all may learn."""
    network.zero_grad()
    loss.backward(retain_graph=True)
    return {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("stage", STAGES)
def test_gradients_reach_what_the_detach_marks_allow(kernel: Kernel, stage: Stage) -> None:
    network, (images, tags) = esol_network(displaced=True, kernel=kernel, clip="none").train(), example()
    network.requires_grad_(True)  # the marks hold without `learn`
    outputs = network(images.requires_grad_(), stage)
    branch = {f"{stage}.branch.weight", f"{stage}.branch.bias"}
    total, terms = esol_loss(outputs._replace(fitted=None), tags, stage, EsolLossForm())
    assert with_gradient(network, total) == branch
    if stage == "shrinkage":
        assert with_gradient(network, terms["area"]) == branch == with_gradient(network, terms["tags"])
    if kernel == "trained":
        total, terms = esol_loss(outputs, tags, stage, EsolLossForm())
        assert with_gradient(network, terms["kernel"]) == {f"{stage}.weight"}
        assert with_gradient(network, total) == branch | {f"{stage}.weight"}
    else:
        assert outputs.fitted is None
    assert images.grad is None


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_offset_branch_follows_the_inverse_loss_and_the_kernel_the_ordinary_one(kernel: Kernel) -> None:
    network, (images, tags) = esol_network(kernel=kernel, clip="none").train(), example()
    network.learn("expansion")
    form = EsolLossForm(inverse_over="all", ceiling=100.0)
    before = tag_loss(network.stage_maps(images)[1].mean((2, 3)), tags)
    optimiser = torch.optim.SGD(network.expansion.branch.parameters(), lr=0.05)
    for _ in range(20):
        total, _ = esol_loss(network(images, "expansion"), tags, "expansion", form)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    after = tag_loss(network.stage_maps(images)[1].mean((2, 3)), tags)
    assert after > before
    if kernel == "trained":
        kernels = torch.optim.SGD([p for n, p in network.expansion.named_parameters() if n == "weight"], lr=0.01)
        losses = []
        for _ in range(5):
            total, terms = esol_loss(network(images, "expansion"), tags, "expansion", form)
            network.zero_grad()
            total.backward()
            kernels.step()
            losses.append(terms["kernel"].item())
        assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("stage", STAGES)
def test_learn_shows_the_optimiser_one_stage(kernel: Kernel, stage: Stage) -> None:
    network = esol_network(kernel=kernel)
    parts = ["weight"] if kernel == "trained" else []
    expected = {f"{stage}.{name}" for name in [*parts, "branch.weight", "branch.bias"]}
    for order in (STAGES, STAGES[::-1], (stage,)):
        for each in order:
            network.learn(each)
    assert {name for name, p in network.named_parameters() if p.requires_grad} == expected
    assert set(network.learning(stage)) == expected


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kernel", KERNELS)
def test_all_stages_start_exactly_at_the_cam_baseline(kernel: Kernel, memory: torch.memory_format) -> None:
    network, (images, tags) = esol_network(kernel=kernel, clip="none").eval(), example()
    network.to(memory_format=memory)
    images = images.contiguous(memory_format=memory)
    baseline = network.base.activations(images, tags).classes
    assert baseline.any()
    for maps in network.stage_maps(images):
        assert torch.equal(maps, baseline)
    for stage in STAGES:
        assert torch.equal(network.train()(images, stage).maps, baseline)  # no dropout in a frozen classifier
    with torch.autocast("cpu", dtype=torch.bfloat16):
        baseline = network.base.activations(images, tags).classes
        assert all(torch.equal(maps, baseline) for maps in network.stage_maps(images))


@pytest.mark.parametrize("kernel", KERNELS)
def test_stages_of_one_pass_are_those_of_training_and_of_inference(kernel: Kernel) -> None:
    network, (images, tags) = esol_network(displaced=True, kernel=kernel, clip="quantile", clip_level=0.7), example()
    first, second, third = network.eval().stage_maps(images)
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
    form = EsolLossForm(inverse_over=over, area=area, ceiling=ceiling)
    assert -ceiling * (1 + 1e-5) <= inverse_tag_loss(maps.mean((2, 3)), tags, form) <= 0
    assert 0 <= area_loss(maps, tags, form) <= 1 + 1e-6


def test_inverse_loss_below_its_ceiling_is_the_negative_tag_loss() -> None:
    logits, tags = torch.randn(3, 4), torch.eye(4)[:3]
    torch.testing.assert_close(
        inverse_tag_loss(logits, tags, EsolLossForm(inverse_over="all", ceiling=100.0)), -tag_loss(logits, tags)
    )
    present = inverse_tag_loss(logits, tags, EsolLossForm(inverse_over="present", ceiling=100.0))
    torch.testing.assert_close(present, logits[tags.bool()].sigmoid().log().mean())


def test_terms_above_the_ceiling_push_no_further() -> None:
    logits = torch.tensor([[-1.0, 1.0]], requires_grad=True)
    loss = inverse_tag_loss(logits, torch.ones(1, 2), EsolLossForm(ceiling=math.log(2)))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[0, 0] == 0 and gradient[0, 1] > 0  # gradient descent lowers only the confident class


def test_area_counts_present_classes_alone() -> None:
    maps = torch.tensor([[[4.0, 2.0], [0.0, -9.0]], [[5.0, 5.0], [5.0, 5.0]]])[None]
    tags = torch.tensor([[1.0, 0.0]])
    torch.testing.assert_close(
        area_loss(maps, tags, EsolLossForm(area="max")), torch.tensor(1.5 / 4), atol=1e-4, rtol=0
    )
    sigmoid = area_loss(maps, tags, EsolLossForm(area="sigmoid"))
    torch.testing.assert_close(sigmoid, maps[0, 0].sigmoid().mean())
    none = area_loss(maps.requires_grad_(), torch.zeros(1, 2), EsolLossForm())
    none.backward()
    assert none == 0


def test_terms_and_weights() -> None:
    network, (images, tags) = esol_network(displaced=True, kernel="trained"), example()
    form = EsolLossForm(inverse_weight=3.0, area_weight=0.5)
    total, terms = esol_loss(network(images, "expansion"), tags, "expansion", form)
    assert set(terms) == {"inverse", "kernel"}
    torch.testing.assert_close(total, 3 * terms["inverse"] + terms["kernel"])
    total, terms = esol_loss(network(images, "shrinkage"), tags, "shrinkage", form)
    assert set(terms) == {"tags", "area", "kernel"}
    torch.testing.assert_close(total, terms["tags"] + 0.5 * terms["area"] + terms["kernel"])


@pytest.mark.parametrize("wrong", [{"inverse_weight": -1.0}, {"area_weight": -0.1}, {"ceiling": 0.0}])
def test_impossible_losses_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least 0|above 0"):
        EsolLossForm(**wrong)


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_runs_away_in_a_thousand_adversarial_steps(kernel: Kernel) -> None:
    """Plain gradient descent with an absurd rate, no clipping of gradients, on images that never change."""
    network, (images, tags) = esol_network(kernel=kernel, reach=1.5, clip="none").train(), example(height=12, width=16)
    form = EsolLossForm(inverse_weight=5.0, ceiling=2.0)
    features = network.base.backbone(images)[-1]
    logits = network.base.head(features).abs().amax() * (9 if kernel == "trained" else 1)
    for stage in STAGES:
        optimiser = torch.optim.SGD(network.get_submodule(stage).get_submodule("branch").parameters(), lr=100.0)
        for _ in range(1000 if stage == "expansion" else 200):
            outputs = network(images, stage)
            total, terms = esol_loss(outputs, tags, stage, form)
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
            assert torch.isfinite(total) and outputs.maps.abs().amax() <= logits
            assert stage == "shrinkage" or -form.ceiling <= terms["inverse"] <= 0
    for offsets in network.offsets(images):
        assert torch.isfinite(offsets).all() and offsets.any() and offsets.abs().max() <= 1.5
    assert all(torch.isfinite(p).all() for p in network.parameters())


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_step_in_mixed_precision(device: str, kernel: Kernel, stage: Stage) -> None:
    network, (images, tags) = esol_network(displaced=True, kernel=kernel).to(device).train(), example()
    network.learn(stage)
    exact = network.stage_maps(images.to(device))
    with torch.autocast(device, dtype=torch.bfloat16):
        total, _ = esol_loss(network(images.to(device), stage), tags.to(device), stage, EsolLossForm())
        half = network.stage_maps(images.to(device))
    total.backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()
    for ours, theirs in zip(half, exact, strict=True):
        assert (ours.float() - theirs).abs().mean() < 0.1 * theirs.abs().mean() + 0.05
