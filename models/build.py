"""Building what the tables of `models.registry` name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from models.registry import BACKBONES, CLASSIFIERS, ENCODERS, NETWORKS, segmenter_network


def found(at: str) -> Any:
    """What `module:name` names."""
    module, name = at.split(":")
    return getattr(import_module(module), name)


def build(description: Mapping[str, Any]) -> Any:
    """The network that a description describes, with random weights.

    Args:
        description: a key of `NETWORKS` under `network`, and the arguments of what it names; as in `network.json`.
    """
    arguments = dict(description)
    return found(NETWORKS[arguments.pop("network")])(**arguments)


def trunk(name: str) -> Any:
    """A backbone or encoder by its name, with random weights."""
    return found((BACKBONES | ENCODERS)[name].at)()


def carrier(name: str) -> Any:
    """What the initial weights of a name load into, with random weights: a classifier, a segmenter, or a trunk.

    A classifier is as good as the trunk of the same name: both load the trunk.
    """
    if name in CLASSIFIERS:
        return build(classifier_description(name, classes=1, dropout=0.0))
    return build(segmenter_description(name, 2)) if segmenter_network(name) else trunk(name)


def segmenter_description(network: str, labels: int) -> dict[str, Any]:
    """How a segmentation network is built, for `build`.

    Args:
        network: a choice of `segmenter.network` that trains.
        labels: classes and background.
    """
    library, *chosen = network.split(":")
    arguments = dict(zip(("decoder", "encoder"), chosen, strict=False))
    return {"network": library, **arguments, "labels": labels}


def classifier_description(network: str, classes: int, dropout: float, width: int | None = None) -> dict[str, Any]:
    """How a classifier is built, for `build`.

    Args:
        network: a choice of `classifier.network`.
        classes: number of foreground classes.
        dropout: share dropped in training: pooled channels, or whole transformer blocks of a Conformer.
        width: of a further convolution in its head; None: without, and for classifiers with attention.
    """
    chosen = CLASSIFIERS[network]
    wide = {} if width is None else {"width": width}
    return {"network": chosen.network, **chosen.arguments, "classes": classes, chosen.dropout: dropout} | wide
