"""The classifier with a further convolution in its head, alone and below ESOL."""

from __future__ import annotations

import torch
from torch import nn

from models.build import build, classifier_description
from models.cam.classifier import CamClassifier
from models.esol.network import EsolNetwork

TRUNK, CLASSES, WIDTH = "efficientnet_lite0", 2, 16


def test_logits_are_the_mean_of_the_maps_with_and_without_it() -> None:
    torch.manual_seed(0)
    images, tags = torch.randn(2, 3, 64, 96), torch.ones(2, CLASSES)
    for width in (None, WIDTH):
        described = classifier_description(TRUNK, CLASSES, 0.0, width)
        assert ("width" in described) == (width is not None), "other descriptions stay as they were"
        network = build(described).eval()
        with torch.no_grad():
            torch.testing.assert_close(network(images), network.activations(images, tags).classes.mean((2, 3)))


def test_new_layer_learns_with_the_head() -> None:
    network = CamClassifier(TRUNK, CLASSES, 0.5, WIDTH)
    assert isinstance(network.head, nn.Sequential)
    assert network.head[0].weight.shape == (WIDTH, 1280, 3, 3)
    assert network.head[2].p == 0.5, "dropout is in front of the last layer"


def test_esol_reads_its_maps() -> None:
    torch.manual_seed(0)
    described = classifier_description(TRUNK, CLASSES, 0.0, WIDTH)
    network = EsolNetwork(described, {}).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            network.all_maps(images)[0], network.base.activations(images, torch.ones(1, 2)).classes
        )
