"""Training photographs on which everything is chosen that is chosen with masks; no reported number is of them.

Source: Choe et al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020, section 4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from pipeline.data.manifest import Record


def drawn(name: str, share: float) -> bool:
    """Whether a photograph is one of the share; its id alone decides, so others that come or go change nothing."""
    number = int.from_bytes(hashlib.sha256(f"tune {name}".encode()).digest()[:8], "big")
    return number < share * 2**64


def set_apart(records: Sequence[Record], share: float) -> list[str]:
    """Ids of the training photographs that are the share, in their order."""
    return [record.id for record in records if record.split == "train" and drawn(record.id, share)]


def validated_on_tune(records: Sequence[Record], share: float) -> list[Record]:
    """The tune photographs are the validation split: they leave the training, and the real one is left out.

    Training photographs come first, as in every manifest.
    """
    tune = set(set_apart(records, share))
    training = [record for record in records if record.split == "train" and record.id not in tune]
    return training + [replace(record, split="val") for record in records if record.id in tune]
