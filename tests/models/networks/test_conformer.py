"""Conformer: names, sizes, branches, attention as observed, checkpoints."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import Block as TimmBlock
from torch import Tensor, nn
from torch.nn import functional

from models.networks.attention import AttentionCoupling, AttentionSum
from models.networks.conformer import (
    CONFORMERS,
    Attention,
    Block,
    Conformer,
    MapToTokens,
    TokensToMap,
    load_conformer,
)
from models.transcam.network import TransCam
from pipeline.training.state_files import read_state
from tests.support import GOLDEN

TINY = CONFORMERS["conformer_tiny"]
HEADS = ["conv_cls_head.bias", "conv_cls_head.weight", "trans_cls_head.bias", "trans_cls_head.weight"]


# ------------------------------------------------------------------------------------------------ names, shapes, sizes


def test_names_and_shapes_are_the_released_ones() -> None:
    manifest = json.loads((GOLDEN / "conformer_s_manifest.json").read_text())
    with torch.device("meta"):
        official, ours = Conformer(CONFORMERS["conformer_s"]), TransCam("conformer_s", 20).backbone
    listed = manifest["conformer_small_patch16"]
    assert len(listed) == 718
    for network, expected in ((official, listed), (ours, listed | manifest["transcam_changed"])):
        assert {name: list(own.shape) for name, own in network.state_dict().items()} == expected


@pytest.mark.parametrize(
    ("size", "millions"), [("conformer_ti", 23.52), ("conformer_s", 37.673424), ("conformer_b", 83.29)]
)
def test_parameter_counts(size: str, millions: float) -> None:
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in Conformer(CONFORMERS[size]).parameters())
    digits = len(str(millions).split(".")[1])
    assert round(count / 1e6, digits) == millions


def test_grids_of_both_heads() -> None:
    with torch.device("meta"):
        official, cam = Conformer(TINY), TransCam("conformer_tiny", 20)
        assert official.features(torch.empty(1, 3, 224, 224)).maps.shape[2:] == (7, 7)
        for side in (256, 512, 768):
            assert cam.parts(torch.empty(1, 3, side, side)).maps.shape == (1, 20, side // 16, side // 16)


# ---------------------------------------------------------------------------------------------------------- the pieces


@torch.inference_mode()
def test_block_is_timms() -> None:
    torch.manual_seed(0)
    norm: Any = partial(nn.LayerNorm, eps=1e-6)
    reference = TimmBlock(48, num_heads=3, qkv_bias=True, norm_layer=norm).eval()
    ours = Block(48, heads=3).eval()
    ours.load_state_dict(reference.state_dict())
    tokens = torch.randn(2, 17, 48)
    torch.testing.assert_close(ours(tokens), reference(tokens), rtol=0, atol=1e-6)


@torch.inference_mode()
def test_patch_tokens_are_row_major() -> None:
    torch.manual_seed(0)
    rows, columns, stride = 2, 3, 4
    down, up = MapToTokens(5, 8, stride).eval(), TokensToMap(8, 5, stride).eval()
    maps, class_token = torch.randn(1, 5, rows * stride, columns * stride), torch.randn(1, 1, 8)
    tokens = down(maps, class_token)
    back = up(tokens, (rows, columns))
    assert tokens.shape == (1, 1 + rows * columns, 8)
    assert torch.equal(tokens[:, :1], class_token)
    for row in range(rows):
        for column in range(columns):
            token = tokens[:, 1 + row * columns + column]
            area = (..., slice(row * stride, (row + 1) * stride), slice(column * stride, (column + 1) * stride))
            projected = down.conv_project(maps[area]).mean(dim=(2, 3))  # as released: before pooling
            torch.testing.assert_close(token, functional.gelu(down.ln(projected)))
            cell = functional.relu(up.bn(up.conv_project(token[..., None, None])))
            torch.testing.assert_close(back[area], cell.expand(-1, -1, stride, stride))


# ----------------------------------------------------------------------------------------------------------- attention


@torch.inference_mode()
def test_observed_attention_is_the_one_applied() -> None:
    torch.manual_seed(0)
    attention, tokens, seen = Attention(dim=12, heads=3), torch.randn(2, 7, 12), list[Tensor]()
    attended = attention(tokens, observers=[lambda _, queries, keys: seen.append((queries @ keys.mT).softmax(-1))])
    values = attention.qkv(tokens)[..., 24:].unflatten(2, (3, 4)).transpose(1, 2)
    torch.testing.assert_close(attended, attention.proj((seen[0] @ values).transpose(1, 2).flatten(2)))


@torch.inference_mode()
def test_rows_of_attention_are_queries() -> None:
    """One head in which each token attends to the one before it: 0 is the class token, the others are patches."""
    attention = Attention(dim=4, heads=1)
    before = torch.eye(4).roll(1, dims=0)  # row i names token i - 1
    attention.qkv.weight.copy_(torch.cat([100 * before.mT, torch.eye(4), torch.eye(4)]))
    attention.qkv.bias.zero_()
    attention.proj.weight.copy_(torch.eye(4))
    attention.proj.bias.zero_()
    running, fused = AttentionSum(), AttentionCoupling()
    moved = attention(torch.eye(4)[None], observers=[running, fused])
    torch.testing.assert_close(moved[0], before)
    torch.testing.assert_close(running.mean(0), before)
    coupled = torch.tensor([[[0.0, 5, 6]]])  # the first patch looks at the class token, which carries nothing
    torch.testing.assert_close(fused.couple(torch.tensor([[[5.0, 6, 7]]])), coupled)


# --------------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("nested", [False, True])
def test_checkpoint_fills_all_but_the_heads(nested: bool, tmp_path: Path) -> None:
    state = Conformer(TINY, outputs=10).state_dict()
    torch.save({"model": state, "epoch": 300} if nested else state, tmp_path / "checkpoint.pth")
    network = TransCam("conformer_tiny", 3).backbone
    initial = {name: own.clone() for name, own in network.state_dict().items()}
    assert load_conformer(network, read_state(tmp_path / "checkpoint.pth")) == HEADS
    for name, own in network.state_dict().items():
        assert torch.equal(own, initial[name] if name in HEADS else state[name]), name


def test_misfits_of_a_checkpoint_are_all_listed() -> None:
    network = Conformer(TINY, outputs=10)
    initial = network.cls_token.clone()
    state = Conformer(TINY, outputs=10).state_dict() | {"pos_embed": torch.zeros(1)}
    del state["trans_norm.bias"]
    state["conv1.weight"] = torch.zeros(16, 3, 3, 3)
    with pytest.raises(ValueError, match=r"trans_norm\.bias.*pos_embed.*conv1\.weight \(16, 3, 3, 3\)"):
        load_conformer(network, state)
    assert torch.equal(network.cls_token, initial)


def test_patch_32_checkpoint_is_refused_by_name() -> None:
    network = Conformer(TINY, outputs=10)
    state = network.state_dict() | {"trans_patch_conv.weight": torch.zeros(32, 16, 8, 8)}
    with pytest.raises(ValueError, match="patch-32 checkpoint"):
        load_conformer(network, state)
