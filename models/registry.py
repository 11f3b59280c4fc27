"""The classifiers by the names that the configuration gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from models.cam.classifier import CamClassifier
from models.localizer import Localizer
from models.networks.conformer import CONFORMERS, Conformer, load_conformer
from models.networks.loading import load_trunk
from models.transcam.hybrid import HybridClassifier
from models.transcam.network import TransCam

CLASSIFIERS: dict[str, Callable[..., Localizer]] = {
    "cam_classifier": CamClassifier,
    "hybrid": HybridClassifier,
    "transcam": TransCam,
}


def classifier_description(network: str, classes: int, dropout: float) -> dict[str, Any]:
    """How a classifier is built: a key of `CLASSIFIERS` under `network`, and its arguments.

    Args:
        network: name in the configuration: of a backbone, of a Conformer, or of the hybrid.
        classes: number of foreground classes.
        dropout: share dropped in training: pooled channels, or whole transformer blocks of a Conformer.
    """
    if network in CONFORMERS:
        return {"network": "transcam", "size": network, "classes": classes, "drop_path": dropout}
    if network == "efficientnet_lite0_hybrid":
        return {"network": "hybrid", "classes": classes, "dropout": dropout}
    return {"network": "cam_classifier", "backbone": network, "classes": classes, "dropout": dropout}


def load_backbone(trunk: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load ImageNet weights into the backbone of a classifier; only heads may differ.

    Raises:
        ValueError: they do not fit; all differences are listed.
    """
    if isinstance(trunk, Conformer):
        load_conformer(trunk, state)
    else:
        load_trunk(trunk, state)


def build_classifier(description: Mapping[str, Any]) -> Localizer:
    """The network that a description describes, with random weights."""
    arguments = dict(description)
    return CLASSIFIERS[arguments.pop("network")](**arguments)
