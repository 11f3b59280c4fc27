"""Check of this machine's device, made to take less than ten minutes on one large GPU.

Two parts. *Presets*: each paper preset runs a few steps of every stage on drawn scenes, at its published crop and
batch, with random weights: seconds, peak memory, time of a step, whether weights stay finite, and operations without a
deterministic form. *Agreement*: networks, random walks and PAR on the device beside the CPU, in four number formats.

Every row is printed and written to `gpu_check.json` and `gpu_check.md` as soon as it exists. Several GPUs:
`torchrun --standalone --nproc-per-node 2 -m tools.gpu_check`. `--tiny` is a rehearsal for a CPU. `--page docs/scale.md`
runs nothing: it puts the tables of the run in `--out` into that page.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch

from models.knobs import Format
from pipeline.run.errors import UserError
from pipeline.run.files import write_text
from pipeline.run.runtime import Machine, distributed, rank, world_size
from tools.compare import with_table
from tools.gpu_check.agreement import agreement_rows, cases
from tools.gpu_check.measure import TimedMachine
from tools.gpu_check.presets import PHOTOGRAPHS, SIDE, Settings, papers, preset_rows, runtime_of
from tools.gpu_check.results import PLACE, Facts, Results, page_tables

FOLDER = Path(".smoke/gpu_check")


def main() -> None:
    """Run what the command line asks for."""
    arguments = parsed()
    if arguments.page is not None:
        page: Path = arguments.page
        write_text(page, with_table(page.read_text("utf-8"), PLACE, page_tables(arguments.out)))
        return
    settings = Settings(arguments.precision, arguments.tiny)
    methods = chosen("method", arguments.methods, papers())
    compared = chosen("case", arguments.cases, list(cases(settings.tiny)))
    with distributed(runtime_of(settings)) as machine:
        run(methods, compared, settings, machine, arguments.out)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="*", help="whose paper presets run; no name: none; default: all")
    parser.add_argument("--cases", nargs="*", help="what is compared with the CPU; no name: nothing; default: all")
    parser.add_argument("--precision", choices=get_args(Format), default="tf32")
    parser.add_argument("--tiny", action="store_true", help="small networks and sizes, for a CPU")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", FOLDER)), help="folder of the results")
    parser.add_argument("--page", type=Path, help="file whose table is made from the results in --out")
    return parser.parse_args()


def chosen(kind: str, names: Sequence[str] | None, known: Sequence[str]) -> Sequence[str]:
    """The names that are asked for; all where none is.

    Raises:
        UserError: a name is not known.
    """
    if unknown := [name for name in names or () if name not in known]:
        raise UserError(f"no {kind} is called {', '.join(unknown)}; there are {', '.join(known)}")
    return known if names is None else names


def run(methods: Sequence[str], compared: Sequence[str], settings: Settings, machine: Machine, out: Path) -> None:
    """Run both parts; of several processes the first one keeps the rows, and compares."""
    timed = TimedMachine(machine.root, machine.device, machine.workers)
    results = Results(out, facts_of(timed, settings))
    first = rank() == 0
    for row in agreement_rows(compared if first else (), settings.tiny, timed.device):
        results.add("agreement", row)
    for row in preset_rows(methods, settings, timed, (FOLDER / "work").absolute()):
        if first:
            results.add("presets", row)
    if first:
        results.finish()
        print(f"\n{results.folder}:\n\n{results.markdown}")


def facts_of(machine: Machine, settings: Settings) -> Facts:
    """What a reader of the rows must know."""
    cuda = machine.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(machine.device) if cuda else "cpu",
        "processes": world_size(),
        "torch": torch.__version__,
        "precision": settings.precision,
        "tiny": settings.tiny,
        "photographs": PHOTOGRAPHS,
        "side": SIDE,
    }
