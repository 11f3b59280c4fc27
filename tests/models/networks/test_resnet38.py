"""ResNet-38 in the networks that ship: what is frozen, and its output stride."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from models.affinity.affinitynet import FeatureAffinity
from models.cam.classifier import CamClassifier


def classifier() -> CamClassifier:
    return CamClassifier("resnet38", 7, dropout=0.5)


def affinity() -> FeatureAffinity:
    return FeatureAffinity("resnet38", "published")


@pytest.mark.parametrize("build", [classifier, affinity])
def test_frozen_parts(build: Callable[[], nn.Module]) -> None:
    with torch.device("meta"):
        model = build().train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms)
    assert all(module.training for module in model.modules() if isinstance(module, nn.Dropout2d))
    for name, parameter in model.named_parameters():
        first_level = name.removeprefix("backbone.").split(".")[0] in {"conv1a", "b2", "b2_1", "b2_2"}
        assert parameter.requires_grad != (first_level or "bn" in name), name


@pytest.mark.parametrize("size", [(56, 56), (61, 75), (1, 9)])
def test_output_stride(size: tuple[int, int]) -> None:
    grid = tuple(-(-side // 8) for side in size)
    with torch.device("meta"):
        model, images, tags = classifier(), torch.empty(2, 3, *size), torch.ones(2, 7)
        assert model.activations(images, tags).classes.shape == (2, 7, *grid)
        assert model(images).shape == (2, 7)
        assert affinity()(images).shape == (2, 896, *grid)
