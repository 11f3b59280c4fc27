"""A device beside the CPU: maps of every kind of network, both random walks and PAR, in several number formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.affinity.pairs import Neighbourhood
from models.build import build, classifier_description, segmenter_description
from models.refine.par import PAR
from models.refine.walk import irn_walk, psa_walk
from models.registry import AFFINITIES, CLASSIFIERS, ENCODERS, SEGMENTERS
from models.segmenters.segmenter import Segmenter
from tools.gpu_check import tiny
from tools.gpu_check.measure import Row, error_line

CLASSES, RADIUS = 20, 5
SMP = "smp:deeplabv3plus:resnet18"
"""One of the networks of segmentation_models_pytorch."""

SIDE, TINY_SIDE = 512, 64
Case = Callable[[torch.device], Tensor]
"""Computes something (B, C, ...) on a device."""


class Format(NamedTuple):
    """A number format: of forward passes, and whether float32 products may be computed in TF32."""

    dtype: torch.dtype
    tf32: bool = False


FORMATS = {
    "float32": Format(torch.float32),
    "TF32": Format(torch.float32, tf32=True),
    "bfloat16": Format(torch.bfloat16),
    "float16": Format(torch.float16),
}


def agreement_rows(names: Sequence[str], small: bool, device: torch.device) -> Iterator[Row]:
    """One row for each case and number format.

    Args:
        names: of cases.
        small: small networks and images.
        device: what is compared with the CPU in float32.
    """
    prepare = cases(small)
    for name in names:
        try:
            case = prepare[name]()
            wanted = case(torch.device("cpu"))
        except Exception as error:  # any: the others go on
            yield {"case": name, "format": "all", "error": error_line(error)}
            continue
        for word, number_format in FORMATS.items():
            yield {"case": name, "format": word} | compared(case, wanted, number_format, device)


@torch.no_grad()
def compared(case: Case, wanted: Tensor, number_format: Format, device: torch.device) -> Row:
    """How far a case on a device is from what is wanted (B, C, ...).

    Returns:
        `difference`: the largest one over the largest value that is wanted, None where it is not finite; `argmax`: the
        share of places where the same channel is the highest. Or `error`.
    """
    try:
        with calculated_in(number_format, device):
            found = case(device).float().cpu()
    except Exception as error:  # any: an operation that the device lacks in this format
        return {"error": error_line(error)}
    difference = (found - wanted).abs().max() / wanted.abs().max()
    agree = (found.argmax(1) == wanted.argmax(1)).float().mean().item()
    return {"difference": difference.item() if difference.isfinite() else None, "argmax": agree}


@contextmanager
def calculated_in(number_format: Format, device: torch.device) -> Iterator[None]:
    """A context where a device calculates in a number format."""
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolution.allow_tf32
    matmul.allow_tf32 = convolution.allow_tf32 = number_format.tf32
    mixed = number_format.dtype != torch.float32
    try:
        with torch.autocast(device.type, dtype=number_format.dtype, enabled=mixed):
            yield
    finally:
        matmul.allow_tf32, convolution.allow_tf32 = before


# --------------------------------------------------------------------------------------------------------------- cases


def cases(small: bool) -> dict[str, Callable[[], Case]]:
    """All cases by name; each is prepared when it is called."""
    side = TINY_SIDE if small else SIDE
    networks = {name: partial(network_case, about, side) for name, about in descriptions(small).items()}
    rules = {"psa_walk": psa_case, "irn_walk": irn_case, "par": par_case}
    return {**networks, **{name: partial(rule, side) for name, rule in rules.items()}}


def descriptions(small: bool) -> dict[str, dict[str, Any]]:
    """Networks by name, as `models.build.build` takes them: all of the registry, methods on published trunks."""

    def own(name: str) -> str:
        return tiny.small(name) if small else name

    found: dict[str, dict[str, Any]] = {}
    for name in map(own, CLASSIFIERS):
        found[name] = classifier_description(name, CLASSES, 0.0)
    for name in map(own, ENCODERS):
        found[f"toco {name}"] = {"network": "toco", "encoder": name, "classes": CLASSES}
    for name in (*map(own, SEGMENTERS), SMP):
        found[name] = segmenter_description(name, CLASSES + 1)
    plain, attention = (found[own(name)] for name in ("resnet50", "conformer_s"))
    found["amn"] = {"network": "amn", "backbone": own("resnet50"), "classes": CLASSES}
    found["bao"] = {"network": "bao", "classifier": attention}
    found["esol"] = {"network": "esol", "classifier": plain, "form": {}}
    found["affinitynet"] = {"network": "affinitynet", "backbone": own("resnet38")}
    found["irn"] = {"network": "irn", "backbone": own("resnet50")}
    return found


@torch.no_grad()
def network_case(description: Mapping[str, Any], side: int) -> Case:
    """What a network with random weights gives for two random images."""
    torch.manual_seed(0)
    images, tags = torch.randn(2, 3, side, side), torch.ones(2, CLASSES)
    network = filled(build(description)).to(memory_format=torch.channels_last)
    calibrate(network, lambda: output(description["network"], network, images, tags))

    def run(device: torch.device) -> Tensor:
        network.to(device)
        return output(description["network"], network, images.to(device), tags.to(device))

    return run


def filled(network: nn.Module) -> nn.Module:
    """The network with weights so large that what it gives differs from place to place."""
    for value in network.parameters():
        if value.ndim > 1:
            value.data = torch.randn(value.shape) * (2 / value[0].numel()) ** 0.5
    return network


def calibrate(network: nn.Module, run: Callable[[], object]) -> None:
    """Let batch norms divide by the root mean square that one pass shows; the network is in evaluation mode then.

    Without, numbers of deep networks leave the range of 16 bits. Means stay 0: of random features little but rounding
    is left where norms take the means away, and no trained network is like that.
    """
    network.eval()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    run()
    for norm in norms:
        mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
        variance += mean**2
        mean.zero_()
        norm.eval()


def output(name: str, network: Any, images: Tensor, tags: Tensor) -> Tensor:
    """Logits (B, labels, H, W) of a segmenter, affinities (B, offsets, h, w), or maps (B, classes, h, w).

    Maps have the background's behind them where the network has one.
    """
    if isinstance(network, Segmenter):
        return network(images)
    if name in AFFINITIES:
        return network.affinity(images, RADIUS, "full")[0]
    maps, background, *_ = network.activations(images, tags)
    return maps if background is None else torch.cat([maps, background[:, None]], dim=1)


def smooth(count: int, height: int, width: int) -> Tensor:
    """Random smooth scores (count, 3, height, width) in [0, 1]."""
    return functional.interpolate(torch.rand(count, 3, 6, 8), (height, width), mode="bicubic").clamp(0, 1)


def psa_case(side: int) -> Case:
    """AffinityNet's walk on four images."""
    torch.manual_seed(1)
    grid = side // 8
    scores = smooth(4, side, side)
    affinity = torch.rand(4, len(Neighbourhood(RADIUS).offsets), grid, grid) ** 0.2
    return lambda device: psa_walk(scores.to(device), affinity.to(device), radius=RADIUS)


def irn_case(side: int) -> Case:
    """IRN's walk on four images."""
    torch.manual_seed(2)
    grid = side // 4
    scores, boundary = smooth(4, grid, grid), torch.rand(4, grid, grid) ** 3
    affinity = torch.rand(4, len(Neighbourhood(RADIUS).offsets), grid, grid) ** 0.1
    size = (side, side)
    return lambda device: irn_walk(scores.to(device), boundary.to(device), affinity.to(device), size, radius=RADIUS)[0]


def par_case(side: int) -> Case:
    """Pixel-adaptive refinement on four images."""
    torch.manual_seed(3)
    images, masks = torch.rand(4, 3, side // 2, side // 2), smooth(4, side // 2, side // 2)
    return lambda device: PAR().refine(images.to(device), masks.to(device))
