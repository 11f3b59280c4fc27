"""TransCAM: any size, attention as observed, what learns, memory."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.networks.attention import AttentionSum, head_mean
from models.networks.conformer import CONFORMERS, Attention, Block, Conformer
from models.transcam.network import TransCam
from pipeline.training.weights import load_network, save_network
from tools.bench_attention import ROUTES, peak_memory

TINY = CONFORMERS["conformer_tiny"]


def tiny_network(classes: int = 3, drop_path: float = 0.1) -> TransCam:
    """In evaluation mode, with queries and keys large enough for selective attention."""
    torch.manual_seed(0)
    network = TransCam("conformer_tiny", classes, drop_path).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Attention):
                module.qkv.weight.mul_(20)
    return network


def views(height: int = 64, width: int = 64, count: int = 2) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_parameter_count_of_transcam() -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in TransCam("conformer_s", 20).parameters()) == 36_465_066


@torch.inference_mode()
@pytest.mark.parametrize("size", [(64, 64), (61, 75), (33, 130), (1, 9)])
def test_any_size_is_padded_with_zeros(size: tuple[int, int]) -> None:
    network, images = tiny_network(), views(*size)
    grid = tuple(-(-side // 16) for side in size)
    padded = torch.zeros(2, 3, 16 * grid[0], 16 * grid[1])
    padded[:, :, : size[0], : size[1]] = images
    attention = AttentionSum()
    maps = network.parts(images, [attention]).maps
    assert maps.shape == (2, 3, *grid)
    assert attention.mean(1).shape == (1 + grid[0] * grid[1],) * 2
    torch.testing.assert_close(maps, network.parts(padded).maps, rtol=0, atol=0)
    assert network(images).shape == (2, 3)
    assert all(logits.shape == (2, 9) for logits in Conformer(TINY, outputs=9).eval()(images))


def test_drop_path_grows_linearly_and_acts_in_training_alone() -> None:
    network = tiny_network(drop_path=0.5)
    rates = [module.drop_path.drop_prob for module in network.modules() if isinstance(module, Block)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    images = views()
    assert torch.equal(network(images), network(images))
    network.train()
    assert not torch.equal(network(images), network(images))
    without = tiny_network(drop_path=0).train()
    assert torch.equal(without(images), without(images))


@torch.inference_mode()
def test_every_block_is_observed_in_order() -> None:
    network, seen = tiny_network(), list[tuple[int, Tensor]]()
    network.parts(views(), [lambda number, queries, keys: seen.append((number, head_mean(queries, keys)))])
    assert [number for number, _ in seen] == list(range(network.depth))
    for _, attention in seen:
        assert attention.shape == (2, 17, 17)
        torch.testing.assert_close(attention.sum(-1), torch.ones(2, 17))
        assert attention.max() > 3 / 17  # selective, so that the tests below mean something


@torch.inference_mode()
@pytest.mark.parametrize("size", [(64, 64), (45, 70)])
def test_running_sum_equals_fused_equals_naive(size: tuple[int, int]) -> None:
    network, images = tiny_network(), views(*size)
    naive = ROUTES["stacked"](network, images)
    assert naive.shape == network.parts(images).maps.shape
    for route in ("running sum", "fused"):
        torch.testing.assert_close(ROUTES[route](network, images), naive, rtol=1e-5, atol=1e-5)
    assert (naive - ROUTES["network alone"](network, images)).abs().max() > 1e-2


def test_fused_coupling_has_the_gradients_of_the_naive_one() -> None:
    network = tiny_network()
    gradients = {}
    for route in ("fused", "stacked"):
        network.zero_grad()
        ROUTES[route](network, views()).square().mean().backward()
        gradients[route] = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert gradients["fused"].keys() == gradients["stacked"].keys()
    for name, naive in gradients["stacked"].items():
        torch.testing.assert_close(gradients["fused"][name], naive, rtol=0, atol=1e-4 * float(naive.abs().max()))


@torch.inference_mode()
def test_logits_and_maps_leave_the_background_channel_out() -> None:
    network, images = tiny_network(classes=5), views(48, 80)
    outputs = network.outputs(images)
    assert outputs.maps.shape == (2, 6, 3, 5)
    assert outputs.features.maps.shape == (2, TINY.channels, 3, 5)
    assert outputs.features.tokens.shape == (2, network.tokens + 15, TINY.dim)
    for ours, theirs in zip((outputs.conv_logits, outputs.token_logits), network.backbone(images), strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(network.parts(images).maps, outputs.maps[:, 1:])
    torch.testing.assert_close(network(images), (outputs.conv_logits + outputs.token_logits)[:, 1:])


def test_tag_loss_trains_everything_but_the_background_channel() -> None:
    network = tiny_network().train()
    network(views()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    for name, parameter in network.head.named_parameters():
        assert parameter.grad is not None
        assert not parameter.grad[0].any(), name
        assert parameter.grad[1:].any(), name
    assert {id(p) for p in network.head.parameters()} < {id(p) for p in network.parameters()}


def test_network_is_saved_and_loaded(tmp_path: Path) -> None:
    network = tiny_network()
    save_network(tmp_path, network, {"network": "transcam", "size": "conformer_tiny", "classes": 3})
    again = load_network(tmp_path, "train_classifier").eval()
    assert torch.equal(again(views()), network(views()))


@pytest.mark.slow
def test_mirrored_pair_at_768_stays_below_two_gigabytes() -> None:
    assert peak_memory("running sum", "conformer_s", 768) < 2e9
