"""DeepLab-v2: what learns, at which rates, and that parts of a batch give the gradient of the whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models.knobs import Rates
from models.segmenters.deeplabv2 import DeepLabV2
from models.segmenters.task import SegmenterTask
from pipeline.training.loop import _groups

RATES = Rates(lr=0.01, head_lr_factor=10.0, biases="caffe", momentum=0.9, weight_decay=0.1, poly_power=0.9)


@pytest.fixture(scope="module")
def network() -> DeepLabV2:
    torch.manual_seed(0)
    return DeepLabV2(4, (1, 1, 1, 1)).train()


def norms(network: DeepLabV2) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def test_batch_norm_neither_learns_nor_counts(network: DeepLabV2) -> None:
    assert norms(network) and not any(norm.training for norm in norms(network))
    assert not any(weight.requires_grad for norm in norms(network) for weight in norm.parameters())


def test_rates_are_those_of_the_released_program(network: DeepLabV2) -> None:
    task = SegmenterTask(network, RATES, "cross_entropy")
    learning = {name: value for name, value in network.named_parameters() if value.requires_grad}
    backbone, none, weights, biases = _groups(learning, task.parts[0])
    assert none["params"] == [], "convolutions of the trunk have no bias"
    assert len(weights["params"]) == len(biases["params"]) == 4
    assert (backbone["base_lr"], weights["base_lr"], biases["base_lr"]) == pytest.approx((0.01, 0.1, 0.2))
    assert biases["weight_decay"] == 0 and "weight_decay" not in backbone | weights
    assert len(backbone["params"]) + 8 == len(learning)


def gradients(network: DeepLabV2, images: Tensor, labels: Tensor, parts: int) -> list[Tensor]:
    task = SegmenterTask(network, RATES, "cross_entropy")
    network.zero_grad()
    for some, wanted in zip(images.chunk(parts), labels.chunk(parts), strict=True):
        loss, _ = task.loss(network, {"image": some, "labels": wanted})
        (loss / parts).backward()
    return [weight.grad.clone() for weight in network.parameters() if weight.grad is not None]


def test_two_parts_of_five_give_the_gradient_of_ten(network: DeepLabV2) -> None:
    torch.manual_seed(1)
    images, labels = torch.randn(10, 3, 33, 33), torch.randint(0, 4, (10, 33, 33))
    whole, accumulated = (gradients(network, images, labels, parts) for parts in (1, 2))
    for one, other in zip(whole, accumulated, strict=True):
        assert torch.allclose(one, other, atol=1e-5 * float(one.abs().max()))


def test_four_terms_in_training_and_one_answer_after_it(network: DeepLabV2) -> None:
    images = torch.randn(1, 3, 65, 81)
    assert [tuple(logits.shape[2:]) for logits in network(images)] == [(9, 11), (5, 6), (7, 8), (9, 11)]
    with torch.no_grad():
        assert network.eval()(images).shape == (1, 4, 65, 81)
    network.train()


def test_initial_weights_have_the_released_names_without_a_pyramid(network: DeepLabV2) -> None:
    state = {name: value + 1 for name, value in network.base.state_dict().items() if not name.startswith("aspp")}
    other = DeepLabV2(3, (1, 1, 1, 1))
    other.load_pretrained(state)
    loaded = other.base.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    with pytest.raises(ValueError, match="missing"):
        other.load_pretrained({"layer1.conv1.conv.weight": state["layer1.conv1.conv.weight"]})


def test_colours_are_given_red_first_and_read_blue_first(network: DeepLabV2) -> None:
    images = torch.randn(1, 3, 33, 33)
    with torch.no_grad():
        assert torch.equal(network.pyramid(images)[0], network.base(images.flip(1)))
    assert network.mean[0] > network.mean[2], "the mean of red is the largest"
