"""What a second training starts from, without any files: nothing is pretrained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.build import build
from models.knobs import Rates
from models.task import Start

RATES = Rates(lr=0.01, head_lr_factor=10.0, momentum=0.9, weight_decay=0.0, poly_power=0.9)


def start(
    groups: Mapping[str, Any],
    epochs: int = 10,
    classes: int = 2,
    classifier: Mapping[str, Any] | None = None,
    rates: Rates = RATES,
) -> Start:
    """A start from an untrained classifier (none: without one) with groups of knobs, each as a dictionary."""
    return Start(
        groups=groups,
        rates=rates,
        epochs=epochs,
        classes=classes,
        classifier=classifier or {"network": "none"},
        classifier_state=lambda: build(classifier or {}).state_dict(),
        load_pretrained=lambda network, name, weights: None,
    )
