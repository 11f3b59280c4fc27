"""The network of ToCo: shapes, counts, what learns, and maps that share the logits' weights."""

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from models.dual_branch.modulation import ModulatedClassifier
from models.networks.lite import EfficientNetLite
from models.networks.trunk_encoder import TrunkEncoder
from models.toco.network import ToCoNetwork


@pytest.fixture(scope="module")
def published() -> ToCoNetwork:
    """On the meta device."""
    with torch.device("meta"):
        return ToCoNetwork("vit_base", 20)


def test_parameters_of_the_published_network(published: ToCoNetwork) -> None:
    trainable = sum(parameter.numel() for parameter in published.parameters() if parameter.requires_grad)
    assert trainable == 91_587_072
    assert [name for name, parameter in published.named_parameters() if not parameter.requires_grad] == [
        "backbone.pos_embed"
    ]


def test_multiply_adds_of_the_published_network(published: ToCoNetwork) -> None:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        published(torch.empty(1, 3, 448, 448, device="meta"))
    by_kind = {str(kind): operations / 2 for kind, operations in counter.get_flop_counts()["Global"].items()}
    layers = sum(count for kind, count in by_kind.items() if kind in ("aten.convolution", "aten.addmm"))
    assert layers / 1e9 == pytest.approx(71.77, abs=0.005)
    assert sum(by_kind.values()) / 1e9 == pytest.approx(71.77 + 11.36, abs=0.01)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((448, 448), (28, 28)),
        ((224, 224), (14, 14)),
        ((672, 672), (42, 42)),
        ((96, 96), (6, 6)),
        ((500, 375), (31, 23)),
    ],
)
def test_grids(published: ToCoNetwork, size: tuple[int, int], grid: tuple[int, int]) -> None:
    output = published(torch.empty(2, 3, *size, device="meta"))
    assert output.encoding.token.shape == (2, 768)
    assert output.encoding.final.shape == output.encoding.aux.shape == (2, 768, *grid)
    assert output.logits.shape == output.aux_logits.shape == (2, 20)
    assert output.masks.shape == (2, 21, *grid)


def test_grids_of_both_branches_agree() -> None:
    with torch.device("meta"):
        branch = ModulatedClassifier("resnet50", 20)
    assert branch.cams(torch.empty(1, 3, 448, 448, device="meta")).shape == (1, 20, 28, 28)


@torch.no_grad()
def test_logits_and_maps_share_their_weights() -> None:
    torch.manual_seed(0)
    network = ToCoNetwork("vit_test", 3, width=8)
    images = torch.randn(2, 3, 64, 48)
    output = network(images)
    maps = network.cams(output.encoding)
    torch.testing.assert_close(network.stacked_cams(images), torch.cat(maps, dim=1))
    for logits, tokens, head, cams in zip(
        (output.logits, output.aux_logits),
        (output.encoding.final, output.encoding.aux),
        (network.head, network.aux_head),
        maps,
        strict=True,
    ):
        assert cams.shape == (2, 3, 8, 6)
        weights = head.weight[:, :, 0, 0]
        torch.testing.assert_close(logits, functional.linear(tokens.amax((2, 3)), weights))
        torch.testing.assert_close(cams, torch.einsum("bdyx,kd->bkyx", tokens, weights))


@pytest.mark.parametrize(("encoder", "stages"), [("lite0_vit", 6), ("lite0_early_vit", 4), ("lite2_vit", 6)])
def test_compact_network(encoder: str, stages: int) -> None:
    torch.manual_seed(0)
    network = ToCoNetwork(encoder, 4, width=16).train()
    assert isinstance(network.backbone, TrunkEncoder)
    trunk = network.backbone.trunk
    assert len(trunk(torch.zeros(1, 3, 64, 72))) == stages
    whole = EfficientNetLite(2 if encoder == "lite2_vit" else 0).state_dict()
    network.load_pretrained(whole)
    assert all(torch.equal(value, whole[name]) for name, value in trunk.state_dict().items())
    whole.pop("blocks.4.0.bn1.bias")
    with pytest.raises(ValueError, match="1 missing"):
        network.load_pretrained(whole)
    assert network.mean == trunk.mean
    output = network(torch.randn(1, 3, 64, 72))
    assert output.masks.shape == (1, 5, 4, 5)
    (output.masks.sum() + output.logits.sum() + output.aux_logits.sum()).backward()
    without = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert without == frozen
    assert all(name.startswith("backbone.trunk") for name in frozen)
