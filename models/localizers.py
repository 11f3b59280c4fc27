"""The networks that extract_cams can read, by the names that `network.json` gives them."""

from __future__ import annotations

from collections.abc import Callable

from models.amn.network import AmnNetwork
from models.bao.network import BaoNetwork
from models.esol.network import EsolNetwork
from models.localizer import Localizer
from models.networks.vit import ToCoNetwork
from models.registry import CLASSIFIERS

LOCALIZERS: dict[str, Callable[..., Localizer]] = {
    **CLASSIFIERS,
    "amn": AmnNetwork,
    "bao": BaoNetwork,
    "toco": ToCoNetwork,
    "esol": EsolNetwork,
}
