"""The networks of ToCo: shapes, counts, and agreement with timm."""

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from models.dual_branch.modulation import ModulatedClassifier
from models.networks.backbones import EfficientNetLite0
from models.networks.loading import check_and_load
from models.networks.vit import VIT_HEADS, VIT_TAG, ToCoNetwork, VitEncoder, load_encoder


def on_meta(encoder: str = "vit_base", classes: int = 20) -> ToCoNetwork:
    with torch.device("meta"):
        return ToCoNetwork(encoder, classes)


def test_parameters_of_the_published_network() -> None:
    network = on_meta()
    trainable = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert trainable == 91_587_072
    assert [name for name, parameter in network.named_parameters() if not parameter.requires_grad] == [
        "backbone.pos_embed"
    ]


def test_multiply_adds_of_the_published_network() -> None:
    network = on_meta()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, 448, 448, device="meta"))
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
def test_grids(size: tuple[int, int], grid: tuple[int, int]) -> None:
    output = on_meta()(torch.empty(2, 3, *size, device="meta"))
    assert output.encoding.token.shape == (2, 768)
    assert output.encoding.final.shape == output.encoding.aux.shape == (2, 768, *grid)
    assert output.logits.shape == output.aux_logits.shape == (2, 20)
    assert output.masks.shape == (2, 21, *grid)


def test_grids_of_both_branches_agree() -> None:
    with torch.device("meta"):
        branch = ModulatedClassifier("resnet50", 20)
    assert branch.cams(torch.empty(1, 3, 448, 448, device="meta")).shape == (1, 20, 28, 28)


def test_checkpoint_names_are_those_of_timm() -> None:
    with torch.device("meta"):
        published = timm.create_model(VIT_TAG, pretrained=False).state_dict()
    missing = check_and_load(on_meta().backbone, published, VIT_HEADS)
    assert missing == []
    described = timm.get_pretrained_cfg(VIT_TAG)
    assert described is not None
    assert str(described.url).endswith("jx_vit_base_p16_224-80ecf9dd.pth")


def small_vit() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(32, 8, embed_dim=24, depth=4, num_heads=3, num_classes=0)


@torch.no_grad()
def test_encoding_equals_timm_at_its_own_size() -> None:
    vit = small_vit().eval()
    images = torch.randn(2, 3, 32, 32)
    tokens = vit.forward_features(images)
    encoding = VitEncoder(vit)(images)
    torch.testing.assert_close(encoding.token, tokens[:, 0])
    torch.testing.assert_close(encoding.final.flatten(2).mT, tokens[:, 1:])
    early = vit.patch_embed(images)
    assert vit.cls_token is not None
    assert vit.pos_embed is not None
    early = torch.cat([vit.cls_token.expand(2, -1, -1), early], dim=1) + vit.pos_embed
    early = vit.blocks[1](vit.blocks[0](early))
    torch.testing.assert_close(encoding.aux.flatten(2).mT, early[:, 1:])


def test_the_tenth_of_twelve_blocks_is_tapped() -> None:
    assert on_meta().backbone.aux_block == 9


def test_position_table_is_resized_without_smoothing() -> None:
    encoder = VitEncoder(small_vit())
    table = encoder.pos_embed.detach()
    assert encoder._positions(4, 4) is encoder.pos_embed
    resized = encoder._positions(2, 6).detach()
    assert resized.shape == (1, 13, 24)
    torch.testing.assert_close(resized[:, :1], table[:, :1])
    cells = table[:, 1:].mT.unflatten(2, (4, 4))
    # Halfway between two rows the cubic kernel weighs -3/32, 19/32, 19/32, -3/32.
    middle = torch.einsum("bcyx,y->bcx", cells, torch.tensor([-3.0, 19, 19, -3]) / 32)
    threes = encoder._positions(3, 4).detach()[:, 1:].mT.unflatten(2, (3, 4))
    torch.testing.assert_close(threes[:, :, 1], middle)


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


@pytest.mark.parametrize(("encoder", "stages"), [("lite0_vit", 6), ("lite0_early_vit", 4)])
def test_compact_network(encoder: str, stages: int) -> None:
    torch.manual_seed(0)
    network = ToCoNetwork(encoder, 4, width=16).train()
    stem = network.backbone.stem
    assert stem is not None
    assert len(stem(torch.zeros(1, 3, 64, 72))) == stages
    whole = EfficientNetLite0().state_dict()
    load_encoder(network.backbone, whole)
    assert all(torch.equal(value, whole[name]) for name, value in stem.state_dict().items())
    whole.pop("blocks.4.0.bn1.bias")
    with pytest.raises(ValueError, match="1 missing"):
        load_encoder(network.backbone, whole)
    assert network.mean == stem.mean
    output = network(torch.randn(1, 3, 64, 72))
    assert output.masks.shape == (1, 5, 4, 5)
    (output.masks.sum() + output.logits.sum() + output.aux_logits.sum()).backward()
    without = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert without == frozen
    assert all(name.startswith("backbone.stem") for name in frozen)
    assert network.backbone.pos_embed.grad is not None
