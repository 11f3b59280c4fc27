"""AMN's network: what learns, on every backbone, and its loss."""

import pytest
import torch
from torch import nn

from models.amn.balanced_seed_loss import balanced_seed_loss
from models.amn.knobs import SeedLossKnobs
from models.amn.network import AmnNetwork
from models.labels import IGNORE

KNOBS = SeedLossKnobs()


def has_dropout(network: nn.Module) -> bool:
    return any(isinstance(module, nn.Dropout) for module in network.modules())


@pytest.fixture(scope="module")
def amn() -> AmnNetwork:
    torch.manual_seed(0)
    return AmnNetwork("efficientnet_lite0", 4)


def test_eval_switches_dropout_off(amn: AmnNetwork) -> None:
    images, tags = torch.randn(1, 3, 64, 64), torch.ones(1, 4)
    assert has_dropout(amn)
    amn.train()
    assert not torch.equal(amn(images, tags), amn(images, tags))
    amn.eval()
    assert not any(module.training for module in amn.modules())
    assert torch.equal(amn(images, tags), amn(images, tags))


def test_all_but_the_stem_learns(amn: AmnNetwork) -> None:
    logits = amn.train()(torch.randn(2, 3, 48, 80), torch.ones(2, 4))
    assert logits.shape == (2, 5, 3, 5)
    loss, terms = amn.loss(logits, torch.randint(0, 5, (2, 48, 80)), KNOBS)
    torch.testing.assert_close(loss, (terms["background"] + terms["foreground"]) / 2)
    amn.zero_grad()
    loss.backward()
    for name, parameter in amn.named_parameters():
        stem = name.split(".")[:2] in (["backbone", "conv_stem"], ["backbone", "bn1"])
        assert (parameter.grad is None) == stem == (not parameter.requires_grad), name


@pytest.mark.parametrize(("backbone", "stride"), [("resnet50", 16), ("efficientnet_lite0", 16), ("resnet38", 8)])
def test_amn_on_every_backbone(backbone: str, stride: int) -> None:
    with torch.device("meta"):
        network = AmnNetwork(backbone, 20).eval()
        logits = network(torch.empty(2, 3, 96, 64), torch.empty(2, 20))
    assert network.stride == stride and logits.shape == (2, 21, 96 // stride, 64 // stride)
    frozen = {name.split(".")[0] for name, p in network.backbone.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "bn1"} or backbone != "resnet50"
    assert all(parameter.requires_grad for parameter in network.head.parameters())


def test_amn_loss_of_labels_without_one_side(amn: AmnNetwork) -> None:
    logits = torch.randn(1, 5, 3, 3, requires_grad=True)
    for label in (0, 1, IGNORE):
        loss, _ = amn.loss(logits, torch.full((1, 48, 48), label), KNOBS)
        assert torch.isfinite(loss)
        assert torch.equal(loss, balanced_seed_loss(logits, torch.full((1, 3, 3), label)).total)
