"""Training photographs on which everything is chosen that is chosen with masks; no reported number is of them.

Source: Choe et al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020, section 4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from pipeline.data.manifest import Record


def drawn(name: str, share: float) -> bool:
    """Whether a photograph is one of the share; its id alone decides, so others that come or go change nothing."""
    number = int.from_bytes(hashlib.sha256(f"tune {name}".encode()).digest()[:8], "big")
    return number < share * 2**64


def marked(records: Iterable[Record], share: float) -> list[Record]:
    """The photographs, with a share of the training photographs marked as tune."""
    return [replace(record, tune=record.split == "train" and drawn(record.id, share)) for record in records]


def validated_on_tune(records: Iterable[Record]) -> list[Record]:
    """The tune photographs are the validation split: they leave the training, and the real one is left out."""
    return [replace(record, split="val") if record.tune else record for record in records if record.split == "train"]
