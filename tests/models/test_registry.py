"""Every line of the tables of networks and methods: what it names exists, can be built, and is as the line says."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
import torch
from torch import nn

from models.build import build, classifier_description, found, segmenter_description, trunk
from models.knobs import MethodKnobs
from models.localizer import AttentionClassifier, Localizer
from models.networks.backbone import Backbone
from models.refine.knobs import NEEDS
from models.registry import (
    AFFINITIES,
    BACKBONES,
    CLASSIFIERS,
    ENCODERS,
    METHODS,
    NETWORKS,
    SEGMENTERS,
    Method,
    segmenter_network,
)
from models.segmenters.segmenter import Segmenter
from models.task import LocalizerTask
from pipeline.config.localizer import LocalizerKnobs
from pipeline.training.imagenet import LIBRARIES
from tests.support.starts import start

CLASSES = 3
CONVOLUTION = classifier_description("efficientnet_lite0", CLASSES, 0.0)
ATTENTION = classifier_description("conformer_tiny", CLASSES, 0.0)
START = {"any": CONVOLUTION, "convolution": CONVOLUTION, "attention": ATTENTION, "none": None}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "cam_classifier": {"backbone": "resnet38", "classes": CLASSES, "dropout": 0.5},
    "hybrid": {"classes": CLASSES},
    "transcam": {"size": "conformer_tiny", "classes": CLASSES},
    "amn": {"backbone": "resnet50", "classes": CLASSES},
    "bao": {"classifier": ATTENTION, "kind": "conv1x1"},
    "toco": {"encoder": "vit_test", "classes": CLASSES, "width": 8},
    "esol": {"classifier": CONVOLUTION, "form": {"kernel": "trained"}},
    "affinitynet": {"backbone": "efficientnet_lite0", "reading": "published"},
    "irn": {"backbone": "efficientnet_lite0"},
    "smp": {"decoder": "fpn", "encoder": "resnet18", "labels": 1 + CLASSES},
    **{name: {"labels": 1 + CLASSES} for name in SEGMENTERS},
}


def made_by(maker: Any) -> Any:
    """The class itself, or what a function says that it gives."""
    return maker if isinstance(maker, type) else get_type_hints(maker)["return"]


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_built_from_their_description(name: str) -> None:
    with torch.device("meta"):
        network = build({"network": name, **ARGUMENTS[name]})
    assert type(network) is made_by(found(NETWORKS[name]))
    if name in SEGMENTERS or name == "smp":
        assert isinstance(network, Segmenter)
    elif name not in AFFINITIES:
        assert isinstance(network, Localizer)


@pytest.mark.parametrize("name", BACKBONES | ENCODERS)
def test_trunks_have_the_stages_that_they_name(name: str) -> None:
    with torch.device("meta"):
        own = trunk(name)
        maps = own(torch.empty(1, 3, 64, 96))
    assert isinstance(own, Backbone) and len(own.mean) == len(own.std) == 3
    maps = maps[1:] if name in ENCODERS else maps  # before them the class token
    shapes = [(1, width, 64 // stride, 96 // stride) for width, stride in zip(own.channels, own.strides, strict=True)]
    assert sorted(tuple(stage.shape) for stage in maps) == sorted(shapes)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_are_as_their_line_says(name: str) -> None:
    with torch.device("meta"):
        network = build(classifier_description(name, CLASSES, 0.25)).train()
        logits = network(torch.empty(2, 3, 64, 64))
    assert logits.shape == (2, CLASSES)
    assert isinstance(network, AttentionClassifier) == CLASSIFIERS[name].attention == (network.depth > 0)
    rates = {float(getattr(module, "p", getattr(module, "drop_prob", 0)) or 0) for module in network.modules()}
    assert 0.25 in rates, "it drops what the knob says"


@pytest.mark.parametrize("name", [*SEGMENTERS, "smp:fpn:resnet18", "smp:deeplabv3plus:tu-resnet18"])
def test_segmenters_keep_the_size_and_learn_alone_where_their_line_says(name: str) -> None:
    with torch.device("meta"):
        network = build(segmenter_description(name, 1 + CLASSES))
        assert network.eval()(torch.empty(1, 3, 61, 83)).shape == (1, 1 + CLASSES, 61, 83)
    norms = [module for module in network.train().modules() if isinstance(module, nn.BatchNorm2d)]
    line = segmenter_network(name)
    assert line is not None and line.alone == (not any(norm.training for norm in norms))
    parameters = {id(parameter) for parameter in network.parameters()}
    assert {id(parameter) for parameter in network.head.parameters()} < parameters


def test_decoder_of_a_method_is_no_network_that_trains() -> None:
    assert segmenter_network("localizer") is None


def test_imagenet_weights_come_from_libraries_that_are_known() -> None:
    smp = segmenter_network("smp:fpn:resnet18")
    tables: list[Any] = [*(BACKBONES | ENCODERS | SEGMENTERS).values(), *CLASSIFIERS.values(), smp]
    sources = {line.imagenet.partition(":")[0] for line in tables if line.imagenet is not None}
    assert sources == LIBRARIES.keys()


def tasks_of(method: Method) -> list[LocalizerTask]:
    """The trainings of a method with the default knobs, on the meta device."""
    groups = {name: LocalizerKnobs.model_fields[name].default.model_dump() for name in method.groups}
    begin = start(groups, classes=CLASSES, classifier=START[method.classifier])
    return list(found(f"{method.task}:tasks")(begin))


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_as_their_line_says(name: str) -> None:
    method = METHODS[name]
    with torch.device("meta"):
        trainings = tasks_of(method)
        network, description = trainings[-1].result()
        again = build(description)
    assert description["network"] == method.network
    assert type(network) is type(again) is found(NETWORKS[method.network])
    assert network.state_dict().keys() == again.state_dict().keys(), "its description builds the same network"
    assert network.earlier == method.earlier
    assert (network.segmenter() is not None) == method.one_stage
    names = [training.name for training in trainings]
    assert len(set(names)) == len(names), "each training has checkpoints of its own"


def test_groups_of_methods_are_groups_of_knobs() -> None:
    groups = {
        name: field.annotation
        for name, field in LocalizerKnobs.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, MethodKnobs)
    }
    assert groups.keys() == {group for method in METHODS.values() for group in method.groups}
    for name, group in groups.items():
        assert group is not None and group.__module__ == f"models.{name}.knobs"
        assert LocalizerKnobs.model_fields[name].default == group(), "it starts from the group's own defaults"


def test_affinities_are_networks_that_walks_need() -> None:
    assert set(NEEDS.values()) == set(AFFINITIES) <= NETWORKS.keys()
