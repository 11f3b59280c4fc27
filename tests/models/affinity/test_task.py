"""Affinity networks on a backbone: shapes, what learns, readings."""

from __future__ import annotations

import pytest
import torch

from models.affinity.affinitynet import FeatureAffinity
from models.affinity.irn import BoundaryAffinity
from models.affinity.task import AffinityTask
from models.build import build
from models.knobs import Rates
from models.registry import AFFINITIES


@pytest.mark.parametrize("method", AFFINITIES)
def test_network_shapes_and_what_learns(method: str) -> None:
    torch.manual_seed(0)
    network = build({"network": method, "backbone": "efficientnet_lite0"}).train()
    images, labels = torch.randn(2, 3, 64, 96), torch.randint(0, 3, (2, 64, 96))
    loss, terms = network.loss(network(images), labels, radius=4)
    loss.backward()
    assert set(terms) == {"background", "foreground", "different"} and loss > 0
    learns = any(parameter.grad is not None for parameter in network.backbone.parameters())
    assert learns == (method == "affinitynet")
    assert all(parameter.grad is not None for parameter in network.head.parameters())
    affinity, boundary = network.eval().affinity(torch.randn(1, 3, 50, 75), 5, "full")
    stride = network.stride
    assert affinity.shape == (1, 34, -(-50 // stride), -(-75 // stride))
    assert affinity.min() >= 0 and affinity.max() <= 1
    assert (boundary is None) == (method == "affinitynet")


def test_published_reading_changes_widths_and_scale() -> None:
    assert FeatureAffinity("efficientnet_lite0", "published").head.mix.in_channels == 896
    labels, logits = torch.randint(0, 3, (1, 64, 64)), torch.randn(1, 1, 16, 16)
    networks = [BoundaryAffinity("resnet50", reading) for reading in ("released", "published")]
    released, published = (network.loss(logits, labels, 4)[0] for network in networks)
    assert published == pytest.approx(2 * released.item())


def test_boundary_needs_a_fine_map() -> None:
    with pytest.raises(ValueError, match="stride 4"):
        BoundaryAffinity("resnet38")


@pytest.mark.parametrize("method", AFFINITIES)
def test_task_is_the_loss_of_confident_pairs(method: str) -> None:
    torch.manual_seed(0)
    network = build({"network": method, "backbone": "efficientnet_lite0"}).eval()
    rates = Rates(lr=0.1, head_lr_factor=1.0, momentum=0.0, weight_decay=0.0, poly_power=0.9)
    task, batch = (
        AffinityTask(network, rates, 4),
        {"image": torch.randn(1, 3, 64, 64), "labels": torch.zeros(1, 64, 64)},
    )
    batch["labels"] = batch["labels"].long()
    loss, terms = task.loss(network, batch)
    expected, _ = network.loss(network(batch["image"]), batch["labels"], 4)
    torch.testing.assert_close(loss, expected)
    assert set(terms) == {"background", "foreground", "different"}
    assert task.parts[0].head is network.head and task.parts[0].network is network
