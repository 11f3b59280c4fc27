"""The compact segmenter: any size, a trunk with stored statistics and ImageNet weights, no head convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from models.networks.lite import lite0
from models.registry import SEGMENTERS
from models.segmenters.lite_deeplabv3plus import LiteDeepLabV3Plus, lite0_deeplabv3plus
from models.segmenters.segmenter import pixel_loss
from pipeline.training.weights import load_initial

NAME = "efficientnet_lite0_deeplabv3plus"


@pytest.fixture(scope="module")
def network() -> LiteDeepLabV3Plus:
    """With ImageNet weights."""
    torch.manual_seed(0)
    network = lite0_deeplabv3plus(4)
    load_initial(network, NAME, "imagenet", SEGMENTERS[NAME].imagenet)
    return network


@pytest.mark.parametrize("size", [(33, 47), (64, 70), (50, 48)])
@torch.no_grad()
def test_sizes_that_are_no_multiples_of_the_stride(network: LiteDeepLabV3Plus, size: tuple[int, int]) -> None:
    images = torch.randn(1, 3, *size)
    logits = network.eval()(images)
    assert logits.shape == (1, 4, *size)
    whole = network(functional.pad(images, (0, -size[1] % 16, 0, -size[0] % 16)))
    assert torch.equal(logits, whole[:, :, : size[0], : size[1]])


def test_trunk_keeps_its_statistics_and_its_first_stages(network: LiteDeepLabV3Plus) -> None:
    network.train()

    def norms(part: nn.Module) -> list[nn.BatchNorm2d]:
        return [module for module in part.modules() if isinstance(module, nn.BatchNorm2d)]

    assert norms(network.backbone) and not any(norm.training for norm in norms(network.backbone))
    assert norms(network.head) and all(norm.training for norm in norms(network.head))
    before = [norm.running_mean.clone() for norm in norms(network.backbone) if norm.running_mean is not None]
    loss = pixel_loss(network(torch.randn(2, 3, 64, 64)), torch.randint(0, 4, (2, 64, 64)))
    loss.backward()
    after = [norm.running_mean for norm in norms(network.backbone) if norm.running_mean is not None]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    learned = {name.split(".")[1] for name, weight in network.backbone.named_parameters() if weight.grad is not None}
    assert learned == {"3", "4", "5", "6"}, "blocks; stem and first three are frozen"
    assert all(weight.grad is not None for weight in network.head.parameters())


def test_imagenet_weights_are_those_of_the_package_without_the_head_convolution(network: LiteDeepLabV3Plus) -> None:
    own = network.backbone.state_dict()
    assert not [name for name in own if name.startswith(("conv_head", "bn2"))]
    classifier = lite0()
    load_initial(classifier, "efficientnet_lite0", "imagenet", SEGMENTERS[NAME].imagenet)
    full = classifier.state_dict()
    assert {name.split(".")[0] for name in full.keys() - own.keys()} == {"conv_head", "bn2"}
    assert all(torch.equal(value, full[name]) for name, value in own.items())
    torch.manual_seed(0)
    assert not torch.equal(lite0_deeplabv3plus(4).backbone.state_dict()["conv_stem.weight"], own["conv_stem.weight"])
