"""BAO's head, pixel labels, network and objective."""

from typing import Literal, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.amn.conditioning import HeadKind
from models.bao.network import BaoHead, BaoNetwork, bao_loss, target_labels, target_scores
from models.bao.target import target_of
from models.cam.classifier import tag_loss
from models.labels import IGNORE
from models.networks.attention import AttentionCoupling, AttentionSum

Norm = Literal["max", "minmax"]
KINDS: tuple[HeadKind, ...] = get_args(HeadKind)


def example(seed: int, batch: int = 3, classes: int = 4, side: int = 5) -> tuple[Tensor, Tensor]:
    """Coupled maps, and tags with one class at least in each image."""
    rng = torch.Generator().manual_seed(seed)
    tags = torch.rand(batch, classes, generator=rng).round()
    tags[:, seed % classes] = 1
    return 4 * torch.randn(batch, classes, side, side, generator=rng), tags


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), norm=st.sampled_from(["max", "minmax"]))
def test_one_minus_max_is_the_threshold_one_half(seed: int, norm: Norm) -> None:
    cam, tags = example(seed)
    assert torch.equal(target_labels(cam, tags, norm), target_labels(cam, tags, norm, background=0.5))


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    norm=st.sampled_from(["max", "minmax"]),
    background=st.sampled_from(["one_minus_max", 0.0, 0.3, 1.0]),
)
def test_absent_classes_never_appear(seed: int, norm: Norm, background: Literal["one_minus_max"] | float) -> None:
    cam, tags = example(seed)
    labels = target_labels(cam, tags, norm, background)
    assert labels.dtype == torch.int64
    for label, mine in zip(labels, tags, strict=True):
        assert set(label.unique().tolist()) <= {0, *(mine.nonzero().flatten() + 1).tolist()}


@pytest.mark.parametrize("norm", ["max", "minmax"])
def test_maps_without_evidence_give_background(norm: Norm) -> None:
    for cam in (torch.zeros(2, 3, 4, 4), -torch.ones(2, 3, 4, 4)):
        scores = target_scores(cam, torch.ones(2, 3), norm)
        assert torch.equal(scores[:, 0], torch.ones(2, 4, 4)) and not scores[:, 1:].any()
        assert not target_labels(cam, torch.ones(2, 3), norm).any()
    assert not target_labels(torch.rand(2, 3, 4, 4), torch.zeros(2, 3), norm).any()


def test_ties() -> None:
    cam = torch.tensor([8.0, 4.0, 3.0]).view(1, 1, 1, 3)
    scores = target_scores(cam, torch.ones(1, 1))
    middle = float(scores[0, 1, 0, 1])
    tied = target_labels(cam, torch.ones(1, 1), background=middle)
    assert tied.flatten().tolist() == [1, 0, 0]  # class and background equal
    twins = torch.cat([cam, cam], 1)
    assert target_labels(twins, torch.ones(1, 2)).flatten().tolist() == [1, 0, 0]  # the first of equal classes


def test_normalisation() -> None:
    cam = torch.tensor([[1.0, 3.0], [5.0, 2.0]]).view(1, 1, 2, 2)
    scores = target_scores(cam, torch.ones(1, 1))
    torch.testing.assert_close(scores[0, 1], cam[0, 0] / (5 + 1e-5))
    torch.testing.assert_close(scores[0, 0], 1 - scores[0, 1])
    shifted = target_scores(cam, torch.ones(1, 1), "minmax")
    torch.testing.assert_close(shifted[0, 1], (cam[0, 0] - 1) / (4 + 1e-5))


def test_padding_is_ignored_on_request() -> None:
    cam, tags = example(3)
    padding = torch.zeros(3, 5, 5, dtype=torch.bool)
    padding[:, 3:] = True
    labels = target_labels(cam, tags, padding=padding)
    assert (labels[padding] == IGNORE).all()
    assert torch.equal(labels[~padding], target_labels(cam, tags)[~padding])


def test_constant_backgrounds_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="constant background"):
        target_labels(*example(0), background=1.5)


def test_labels_and_gradients_of_one_step() -> None:
    torch.manual_seed(0)
    online = BaoHead(8, 4)
    target = target_of(online)
    features, (_, tags) = torch.randn(3, 8, 5, 5), example(0)

    def same(maps: Tensor) -> Tensor:
        return maps

    labels = target_labels(target(features, tags, same)[:, 1:], tags)
    logits = torch.randn(3, 4, requires_grad=True)
    loss = bao_loss(logits, online(features, tags, same), labels, tags, pixel_weight=2.0)
    assert not labels.requires_grad
    torch.testing.assert_close(loss.total, tag_loss(logits, tags) + 2 * loss.pixels)
    torch.testing.assert_close(loss.pixels, (loss.bg + loss.fg) / 2)
    loss.total.backward()
    assert all(parameter.grad is None for parameter in target.parameters())
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in online.parameters())


def test_objective_stays_finite_without_foreground() -> None:
    logits, maps = torch.randn(2, 4, requires_grad=True), torch.randn(2, 5, 3, 3, requires_grad=True)
    for label in (0, 2, IGNORE):
        loss = bao_loss(logits, maps, torch.full((2, 3, 3), label), torch.ones(2, 4))
        gradients = torch.autograd.grad(loss.total, [logits, maps])
        assert torch.isfinite(loss.total) and all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_bao_head_spreads_its_maps_with_the_attention(kind: HeadKind) -> None:
    torch.manual_seed(0)
    head = BaoHead(8, 4, kind).eval()
    features, tags = torch.randn(2, 8, 3, 5), torch.eye(4)[:2]
    summed, coupling = AttentionSum(), AttentionCoupling()
    for block in range(3):
        queries, keys = torch.randn(2, 2, 2, 16, 6)  # two tensors of 2 images, 2 heads, 1 + 15 tokens
        summed(block, queries, keys)
        coupling(block, queries, keys)
    maps = head.maps(features, tags)
    assert maps.shape == (2, 5, 3, 5) and summed.total is not None
    expected = torch.einsum("bij,bcj->bci", summed.total[:, 1:, 1:], maps.flatten(2)).view(2, 5, 3, 5)
    for operator in (summed, coupling):
        torch.testing.assert_close(head(features, tags, operator.couple), expected, rtol=1e-4, atol=1e-5)


def test_attention_must_have_been_seen() -> None:
    with pytest.raises(ValueError, match="no attention"):
        AttentionSum().couple(torch.zeros(1, 2, 9))


@pytest.fixture(scope="module")
def network() -> BaoNetwork:
    torch.manual_seed(0)
    return BaoNetwork({"network": "transcam", "size": "conformer_tiny", "classes": 4}).eval()


def test_network_couples_maps_and_activation_map_with_the_same_attention(network: BaoNetwork) -> None:
    images, tags = torch.randn(2, 3, 48, 64), torch.eye(4)[:2]
    outputs, attention = network(images, tags), AttentionSum()
    parts = network.base.parts(images, [attention])
    torch.testing.assert_close(outputs.logits, parts.logits)
    torch.testing.assert_close(outputs.cam, attention.couple(parts.maps.flatten(2)).view_as(parts.maps))
    head = network.head
    assert isinstance(head, BaoHead)
    maps = head.maps(parts.features, tags)
    torch.testing.assert_close(outputs.activation_map, attention.couple(maps.flatten(2)).view_as(maps))


def test_inference_maps_are_raw_foreground_and_learned_background(network: BaoNetwork) -> None:
    images, tags = torch.randn(2, 3, 48, 64), torch.eye(4)[:2]
    activations = network.activations(images, tags)
    assert activations.background is not None
    torch.testing.assert_close(activations.background, network(images, tags).activation_map[:, 0])
    torch.testing.assert_close(activations.classes, network.base.parts(images).maps)
    others = network.activations(images, 1 - tags)
    assert others.background is not None and not torch.equal(others.background, activations.background)
    assert torch.equal(others.classes, activations.classes)


def test_a_classifier_without_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a classifier with attention"):
        BaoNetwork({"network": "cam_classifier", "backbone": "efficientnet_lite0", "classes": 2})
