"""Weights of other programs as a plain state dict under the names of the networks here.

Run as `python -m tools.convert_weights IN OUT.safetensors`. It reads

- checkpoints of training scripts (.pth, .pt, .tar), whose command-line arguments (argparse.Namespace) stand beside the
  weights; names may begin with `module.`, as DataParallel writes them;
- OpenMMLab's checkpoints, among them its Conformer;
- the official Conformer checkpoints;
- MXNet's `.params` file of ResNet-38;
- .safetensors.

Nothing in a file is executed: beside tensors and plain values only argparse.Namespace is taken, and it is left out of
the result. The names of the networks here that the result fits are printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.networks.renaming import State, renamed
from models.registry import BACKBONES, CLASSIFIERS, ENCODERS, SEGMENTERS
from pipeline.run.errors import UserError
from pipeline.run.files import expanded, write_atomic
from pipeline.run.stage import run_stage
from pipeline.training.state_files import read_state
from pipeline.training.weights import misfit
from tools.mxnet_params import read_params


def main() -> None:
    """Convert the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="IN", help="the file of another program")
    parser.add_argument("target", metavar="OUT.safetensors", help="the file to write")
    arguments = parser.parse_args()
    source, target = expanded(arguments.source), expanded(arguments.target)
    if target.suffix != ".safetensors":
        raise UserError(f"{target}: the name of the result ends in .safetensors")
    state = convert(source, target)
    numbers = sum(value.numel() for value in state.values())
    print(f"{target}: {len(state)} tensors, {numbers / 1e6:.2f} million numbers")
    print(f"it fits {', '.join(fitting(state)) or 'no network here: names and shapes are those of another one'}")


def convert(source: Path, target: Path) -> dict[str, Tensor]:
    """Write the weights of `source` to `target`, renamed; an earlier file stays where it fails.

    Raises:
        UserError: the source cannot be read.
    """
    theirs = read_mxnet(source) if source.suffix == ".params" else read_state(source, [argparse.Namespace])
    state = {name: value.detach().contiguous().clone() for name, value in renamed(theirs).items()}
    write_atomic(target, lambda temporary: save_file(state, temporary))
    return state


def read_mxnet(path: Path) -> State:
    """The arrays of an MXNet file.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return {name: torch.from_numpy(array.copy()) for name, array in read_params(path).items()}
    except (OSError, ValueError) as error:
        raise UserError(f"weights {path} cannot be read as MXNet parameters: {error}") from error


def fitting(state: State) -> list[str]:
    """The networks here that a state dict can be the initial weights of."""
    names = dict.fromkeys([*BACKBONES, *ENCODERS, *CLASSIFIERS, *SEGMENTERS])
    return [name for name in names if not misfit(name, state)]


if __name__ == "__main__":
    run_stage(main)
