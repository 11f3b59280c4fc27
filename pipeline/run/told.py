"""What a stage is told: the JSON that `configure` writes for it, read once when it starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError

from models.knobs import CrfReference, Format, Knobs, Seed
from pipeline.run.errors import UserError
from pipeline.run.files import expanded

CONFIG = Path("data/config")
T = TypeVar("T", bound=Knobs)


class Told(Knobs):
    """What every stage is told besides its knobs: the digest of the code that it runs (see `pipeline.config.code`)."""

    code: str = ""


class CrfTold(Told):
    """What stages with a dense CRF are told besides."""

    crf_reference: CrfReference = None


class TrainingTold(Told):
    """What trainings are told besides.

    Attributes:
        seed: of all that is drawn.
        processes: among how many a batch is divided.
        training_precision: the number format of forward passes.
        weights_sha256: of the files of initial weights, by path as the knob says it, so that another file under the
            same name is another training.
    """

    seed: Seed
    processes: int = 1
    training_precision: Format = "float32"
    weights_sha256: dict[str, str] = Field(default={})


class InferenceTold(Told):
    """What stages are told besides that make maps, walks, scores or predictions with a network."""

    inference_precision: Format = "float32"


class Runtime(Knobs):
    """How to run, not what to compute: no stage's hash depends on it.

    Where results depend on it beyond rounding (`processes` of trainings), stages are told so too.

    Attributes:
        root: the folder that holds the photographs.
        device: auto, cpu or cuda.
        processes: more than one starts torchrun.
        workers: processes that load images and run the CRF.
    """

    root: str | None
    device: Literal["auto", "cpu", "cuda"]
    processes: int
    workers: int

    @property
    def folder(self) -> Path:
        """The folder that holds the photographs."""
        return expanded(str(self.root))


def told(stage: str, section: type[T]) -> T:
    """What `configure` wrote for a stage (or `runtime`, for all).

    Raises:
        UserError: `configure` has not run, or wrote something else.
    """
    path = CONFIG / f"{stage}.json"
    try:
        return section.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"{path} not found; run `dvc repro` or `python -m pipeline.configure` first") from error
    except (ValidationError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not what configure writes; run `python -m pipeline.configure`: {error}") from error
