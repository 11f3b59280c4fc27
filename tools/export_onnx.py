"""The segmentation network as ONNX, for programs without PyTorch.

Run as `python -m tools.export_onnx OUT.onnx [--predictor data/predictor]`, after `predict`. Batch, height and width are
dynamic. The file gets its name only if onnxruntime gives the network's own logits at three sizes.

Its input `image` (batch, 3, height, width) is RGB in [0, 1], minus `mean`, over `std`; its output `logits` (batch,
labels, height, width) has the order of `classes`. Both lists are in the file's metadata, and so are the knobs that
predictions are made with (view size, scales, mirror images, fusion, CRF), which are the caller's to apply.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from pipeline.predict import PREDICTOR
from pipeline.prediction.predictor import load_segmenter, read_about
from pipeline.run.errors import UserError, disk_is_full
from pipeline.run.files import expanded, read_json, write_atomic
from pipeline.run.runtime import Machine
from pipeline.run.stage import run_stage
from tools.optional import library

TRACED = (2, 3, 97, 130)
"""The images that the network is traced with: sides that no stride divides, so that all padding is seen."""
CHECKED = ((1, 3, 128, 96), (1, 3, 75, 200), (2, 3, 161, 113))
TOLERANCE = 1e-4
"""Of logits, relative to the largest one where that is above 1."""
AXES = {0: "batch", 2: "height", 3: "width"}
OPSET = 18
QUIET = patch.object(torch._C, "_jit_onnx_log")
"""PyTorch prints the whole graph where it does not know an operator."""


def main() -> None:
    """Export the network that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT.onnx", help="the file to write")
    parser.add_argument("--predictor", type=Path, default=PREDICTOR, metavar="DIR", help="(%(default)s)")
    arguments = parser.parse_args()
    out = expanded(arguments.out)
    if out.suffix != ".onnx":
        raise UserError(f"{out}: the name of the result ends in .onnx")
    largest = export(arguments.predictor, out)
    sizes = ", ".join(f"{height}x{width}" for _, _, height, width in CHECKED)
    print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB; logits of onnxruntime differ by {largest:.1e} at {sizes}")


def export(folder: Path, out: Path) -> float:
    """Write a network as ONNX; an earlier file stays where it fails.

    Args:
        folder: what stage `predict` left for other photographs.
        out: the file.

    Returns:
        The largest difference between its logits and the network's, over what `TOLERANCE` is relative to.

    Raises:
        UserError: a library is missing, the network cannot be exported, or the result gives other logits.
    """
    onnx, onnxruntime = library("onnx", "onnx"), library("onnxruntime", "onnxruntime")
    network = load_segmenter(folder, Machine(Path(), torch.device("cpu"), 0))
    largest = 0.0

    def write(temporary: Path) -> None:
        nonlocal largest
        convert(network, temporary)
        model = onnx.load(temporary)
        onnx.helper.set_model_props(model, metadata(folder))
        onnx.checker.check_model(model)
        onnx.save(model, temporary)
        largest = checked(network, onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"]))

    write_atomic(out, write)
    return largest


def convert(network: nn.Module, path: Path) -> None:
    """Write the graph of a network.

    PyTorch's newer exporter (`dynamo`) takes minutes for networks that pad, and seconds for this.

    Raises:
        UserError: the exporter cannot; says why.
    """
    axes = {"image": AXES, "logits": AXES}
    names: dict[str, Any] = {"input_names": ["image"], "output_names": ["logits"], "dynamic_axes": axes}
    try:
        with warnings.catch_warnings(), torch.no_grad(), QUIET:
            warnings.simplefilter("ignore")
            torch.onnx.export(network, (torch.randn(TRACED),), path, dynamo=False, opset_version=OPSET, **names)
    except Exception as error:  # exporters raise nearly anything
        if disk_is_full(error):
            raise
        raise UserError(f"this network has no form in ONNX: {reason(error)}") from error


def reason(error: Exception) -> str:
    """The first line of an exporter's error."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def metadata(folder: Path) -> dict[str, str]:
    """What a program needs beside the graph: labels, normalisation, and how predictions are made."""
    about = read_about(folder)
    content = {
        "classes": ["background", *about.classes],
        "mean": about.mean,
        "std": about.std,
        "network": read_json(folder / "network.json", "train_segmenter"),
        **about.how.model_dump(mode="json", exclude={"code"}),
    }
    return {key: json.dumps(value, ensure_ascii=False) for key, value in content.items()}


def checked(network: nn.Module, session: Any) -> float:
    """The largest difference between the logits of both, at the sizes of `CHECKED`.

    Raises:
        UserError: it is above `TOLERANCE`, or onnxruntime cannot run the graph at a size.
    """
    largest, generator = 0.0, torch.Generator().manual_seed(0)
    for size in CHECKED:
        images = torch.randn(size, generator=generator)
        with torch.inference_mode():
            expected = network(images)
        where = f"of {size[2]}x{size[3]}"
        try:
            found = torch.from_numpy(session.run(["logits"], {"image": images.numpy()})[0])
        except Exception as error:  # its exceptions have no common class
            raise UserError(f"onnxruntime cannot run this network on images {where}: {reason(error)}") from error
        if found.shape != expected.shape:
            raise UserError(
                f"onnxruntime gives logits {tuple(found.shape)} on images {where}, not {tuple(expected.shape)}"
            )
        difference = float((found - expected).abs().max() / expected.abs().max().clamp(min=1))
        if not difference <= TOLERANCE:
            raise UserError(f"onnxruntime gives logits that differ by {difference:.1e} on images {where}")
        largest = max(largest, difference)
    return largest


if __name__ == "__main__":
    run_stage(main)
