"""What encoders of tokens give, whichever network they are."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Encoding(NamedTuple):
    """What one pass through an encoder gives.

    Attributes:
        token: (B, dim) class token after the last normalisation.
        final: (B, dim, h, w) patch tokens after the last normalisation.
        aux: (B, dim, h, w) patch tokens after an earlier block, not normalised.
    """

    token: Tensor
    final: Tensor
    aux: Tensor
