"""The networks that extract_cams can read, by the names that `network.json` gives them."""

from __future__ import annotations

from collections.abc import Callable

from models.amn import AmnNetwork
from models.bao import BaoNetwork
from models.classifiers import CLASSIFIERS
from models.esol import EsolNetwork
from models.localizer import Localizer
from models.vit import ToCoNetwork

LOCALIZERS: dict[str, Callable[..., Localizer]] = {
    **CLASSIFIERS,
    "amn": AmnNetwork,
    "bao": BaoNetwork,
    "toco": ToCoNetwork,
    "esol": EsolNetwork,
}
