"""Number formats of networks: what a machine computes in, and what it says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import torch

from models.knobs import Format
from pipeline.run.runtime import Machine
from tools.gpu_check.measure import TimedMachine

CPU = Machine(Path(), torch.device("cpu"), workers=0)


@pytest.fixture(autouse=True)
def flags() -> Iterator[None]:
    """The settings of the process are put back."""
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolution.allow_tf32
    yield
    matmul.allow_tf32, convolution.allow_tf32 = before


@pytest.mark.parametrize("number_format", get_args(Format))
def test_forward_passes_are_in_the_format(number_format: Format) -> None:
    layer, vector = torch.nn.Linear(2, 2), torch.ones(1, 2)
    with CPU.computing_in(number_format).autocast():
        found = layer(vector).dtype
    sixteen = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    assert found == sixteen.get(number_format, torch.float32)
    allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    assert allowed == (number_format == "tf32",) * 2


def test_another_format_leaves_the_machine_as_it_is() -> None:
    timed = TimedMachine(Path(), torch.device("cpu"), workers=3)
    other = timed.computing_in("bfloat16")
    assert (timed.precision, other.precision, other.workers) == ("float32", "bfloat16", 3)
    other.step_done()
    assert len(timed.ends) == 1, "it notes its steps in the same place"
