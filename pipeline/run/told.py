"""What a stage is told: the JSON that `configure` writes for it, read once when it starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError

from models.knobs import CrfReference, Knobs, Seed
from pipeline.run.errors import UserError
from pipeline.run.files import sha256

CONFIG = Path("data/config")
NumberFormat = Literal["float32", "bfloat16", "float16"]
T = TypeVar("T", bound=Knobs)


class Told(Knobs):
    """What every stage is told besides its knobs: the digest of the code that it runs (see `pipeline.config.code`)."""

    code: str = ""


class CrfTold(Told):
    """What stages with a dense CRF are told besides."""

    crf_reference: CrfReference = None


class Computed(Told):
    """What stages with networks are told besides: the number format of forward passes."""

    number_format: NumberFormat = "float32"


class Seeded(Computed):
    """What trainings are told besides.

    Attributes:
        seed: of the training.
        processes: among how many a batch is divided.
        files: SHA-256 of the files outside DVC that it reads, its initial weights, by their path.
    """

    seed: Seed
    processes: int = 1
    files: dict[str, str] = Field(default_factory=dict)


class Runtime(Knobs):
    """How to run, not what to compute: no stage's hash depends on it.

    Where results depend on it beyond rounding (`precision`, and `processes` of trainings), stages are told so too.

    Attributes:
        root: the folder that holds the photographs.
        device: auto, cpu or cuda.
        precision: of forward passes; `configure` settles what auto is.
        processes: more than one starts torchrun.
        workers: processes that load images and run the CRF.
    """

    root: str | None
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto"] | NumberFormat
    processes: int
    workers: int

    @property
    def folder(self) -> Path:
        """The folder that holds the photographs."""
        return Path(str(self.root))


def told(stage: str, section: type[T]) -> T:
    """What `configure` wrote for a stage (or `runtime`, for all).

    Raises:
        UserError: `configure` has not run, or wrote something else; a file that it took the hash of is another one now.
    """
    path = CONFIG / f"{stage}.json"
    try:
        config = section.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"{path} not found; run `dvc repro` or `python -m pipeline.configure` first") from error
    except (ValidationError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not what configure writes; run `python -m pipeline.configure`: {error}") from error
    for file, digest in config.files.items() if isinstance(config, Seeded) else ():
        if not Path(file).is_file() or sha256(Path(file)) != digest:
            raise UserError(
                f"{file} has changed since configure looked at it; run `dvc repro --force configure`, then `dvc repro`"
            )
    return config
