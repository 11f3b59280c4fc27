"""Segments of another tool vote on masks: tools such as SAM find outlines of things and have no word for them.

A label PNG `<id>.png` numbers the segments of a photograph; 0 is none. In each segment the label that prevails becomes
that of all its pixels, where it has at least the share `masks.segment_share` of them. Background votes too; ignored
pixels do not. Source: majority voting, `reconstructed`; works on SAM and pseudo masks differ in their rules.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.labels import IGNORE
from pipeline.config.masks import MaskRules
from pipeline.data.manifest import Record
from pipeline.data.masks import read_segments
from pipeline.data.outside import PNG, outside_file
from pipeline.maps.background import Labels
from pipeline.run.errors import UserError

LABELS = 256


def voted(labels: Labels, record: Record, rules: MaskRules) -> Labels:
    """The labels (H, W) of a photograph after the vote; as they are where there are no segments.

    Raises:
        UserError: its segments are missing or cannot be used.
    """
    if rules.segment_files is None:
        return labels
    path = outside_file(rules.segment_files.path, record.id, PNG)
    if path is None:
        raise UserError(
            f"masks.segments = {rules.segment_files.folder}: no {record.id}.png; every training photograph needs one"
        )
    try:
        segments = read_segments(path, record.size)
    except UserError as error:
        raise UserError(f"segments {error}") from error
    return vote(labels, segments, rules.segment_share)


def vote(labels: Labels, segments: NDArray[np.uint16], share: float) -> Labels:
    """Give every segment the label that prevails in it.

    Args:
        labels: (H, W) uint8, 255 ignored.
        segments: (H, W) numbers of segments, 0 none.
        share: of a segment's pixels that the label must have.

    Returns:
        (H, W) uint8; of equal counts the lower label wins.
    """
    pairs = segments.astype(np.int64) * LABELS + labels
    counts = np.bincount(pairs.ravel(), minlength=(int(segments.max(initial=0)) + 1) * LABELS).reshape(-1, LABELS)
    winner = counts[:, :IGNORE].argmax(axis=1)
    pixels = counts.sum(axis=1)
    wins = counts[np.arange(len(counts)), winner] >= share * np.maximum(pixels, 1)
    wins[0] = False
    return np.where(wins[segments], winner[segments], labels).astype(np.uint8)
