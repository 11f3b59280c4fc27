"""Parameters and multiply-adds of ToCo and the dual branch, without weights or images.

`python -m tools.complexity` (or `make complexity`) prints what remains at inference, what exists in training beside
it, and how much of an iteration one encoding of every view saves (the dual-branch paper's table 4).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.dual_branch.modulation import ModulatedClassifier
from models.networks.vit import VitEncoder
from models.registry import ENCODERS
from models.toco.contrast import ContrastHeads
from models.toco.knobs import TocoKnobs
from models.toco.losses import Thresholds, Views, toco_losses, weighted_sum
from models.toco.network import ToCoNetwork

LAYERS = ("aten.convolution", "aten.addmm", "aten.mm")
WEIGHTS = {"tags": 1.0, "aux_tags": 1.0, "ptc": 0.2, "ctc": 0.5}  # labels of masks cost nothing that is counted
BRANCHES = {
    "vit_base": "resnet50",
    "lite0_vit": "efficientnet_lite2",
    "lite0_early_vit": "efficientnet_lite2",
    "lite2_vit": "efficientnet_lite0",
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", choices=list(ENCODERS), default="vit_base")
    parser.add_argument("--classes", type=int, default=20, help="without background")
    parser.add_argument("--size", type=int, default=448, help="side of the image")
    parser.add_argument("--crop", type=int, default=96, help="side of the local views")
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 80], help="channels inside the decoder")
    arguments = parser.parse_args()
    with torch.device("meta"):
        image = torch.empty(1, 3, arguments.size, arguments.size)
        print("at inference: parameters that learn, multiply-adds of layers, and with attention")
        for width in arguments.widths:
            network = ToCoNetwork(arguments.encoder, arguments.classes, width)
            print(f"  {arguments.encoder}, decoder of {width} channels: {described(network, image)}")
        print("only in training:")
        print(f"  heads of class token contrast: {count(ContrastHeads(network.backbone.dim)):,} parameters")
        if branch := BRANCHES.get(arguments.encoder):
            classifier = ModulatedClassifier(branch, arguments.classes)
            print(f"  {branch} with modulation: {described(classifier, image)}")
        # The counter takes the gradients of a trunk's grouped convolutions for dense.
        if isinstance(network.backbone, VitEncoder):
            once, again = iteration(ToCoNetwork(arguments.encoder, arguments.classes), image, arguments.crop)
            print("an iteration on one image, forward and backward, with attention:")
            print(f"  one encoding of every view: {once / 1e9:,.1f} G")
            print(f"  encodings and decodings repeated as in the released code: {again / 1e9:,.1f} G")
            print(f"  saved: {1 - once / again:.1%}")


def count(network: nn.Module) -> int:
    """Parameters that learn."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def described(network: nn.Module, image: Tensor) -> str:
    """Parameters and multiply-adds of one forward pass, in words."""
    with torch.no_grad():
        by_kind = counted(lambda: network(image))
    layers = sum(value for kind, value in by_kind.items() if kind in LAYERS)
    return f"{count(network):,} parameters, {layers / 1e9:.2f} G, {sum(by_kind.values()) / 1e9:.2f} G"


def counted(work: Callable[[], object]) -> dict[str, float]:
    """Multiply-adds of some work by kind of operation."""
    with FlopCounterMode(display=False) as counter:
        work()
    return {str(kind): value / 2 for kind, value in counter.get_flop_counts()["Global"].items()}


def iteration(network: ToCoNetwork, image: Tensor, crop: int) -> tuple[float, float]:
    """Multiply-adds of an iteration on one image, with one encoding of every view, and with the released repetitions.

    The released program encodes the first view again for its map and for the teacher, and once more, with gradient,
    for the student; the second one again for the teacher; and decodes in every pass that only makes maps.

    Args:
        network: on the meta device.
        image: (1, 3, H, W), on the meta device.
        crop: side of the local views.
    """
    contrast, classes = ContrastHeads(network.backbone.dim), network.head.out_channels
    tags, boxes = torch.empty(1, classes), torch.empty(1, 4, dtype=torch.int64)
    views, thresholds = Views(image, image, image, tags, boxes), Thresholds(0.25, 0.7, 0.7, 0.7)
    knobs = TocoKnobs(crop=crop)

    def ours() -> None:
        output = network(image)
        losses = toco_losses(network, contrast, output, views, thresholds, WEIGHTS, knobs)
        (weighted_sum(losses, WEIGHTS) + output.masks.mean()).backward()

    def repeated() -> None:
        network.backbone(image).token.sum().backward()
        with torch.no_grad():
            for side in map_sides(image.shape[2], knobs.scales):
                network.decoder(image.new_empty(1, network.backbone.dim, side, side))
            for _ in range(3):
                network.backbone(image)

    def map_sides(side: int, scales: list[float]) -> list[int]:
        """Grids of all passes that make maps, each with its mirror image."""
        return [int(side * scale) // network.stride for scale in scales for _ in range(2)]

    once, more = (sum(counted(work).values()) for work in (ours, repeated))
    return once, once + more


if __name__ == "__main__":
    main()
