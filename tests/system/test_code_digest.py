"""The digest of a stage's code covers every module of the project that the stage really loads."""

from __future__ import annotations

import ast
import sys
from concurrent import futures
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.code import MODULE, PACKAGES, TABLES, imported, without_docstrings
from pipeline.config.load import resolve
from pipeline.config.stages import SCORED, stage_entries
from pipeline.data.masks import write_mask
from pipeline.run.files import read_json
from pipeline.run.told import CONFIG, Runtime, told
from pipeline.scoring.artefacts import EVALUATED
from tests.support import ROOT
from tests.support.knobs import shipped
from tests.support.processes import forked
from tests.support.project import PHOTOGRAPHS, configure, write_photographs
from tests.support.stages import InlinePool, here

pytestmark = pytest.mark.slow

LIGHT = ("prepare_data", "choose_background", "make_masks", "evaluate", "report")
TRAININGS = ("classifier", "localizer", "affinity", "segmenter")
TINY: dict[str, Any] = {
    **{
        f"{group}__optimisation__{knob}": value
        for group in TRAININGS
        for knob, value in {"epochs": 1, "batch": 4}.items()
    },
    **{f"{group}__augmentation__long_side": [48, 64] for group in TRAININGS},
    **{f"{group}__augmentation__crop": 64 for group in TRAININGS},
    "data__name": "folder",
    "data__root": PHOTOGRAPHS,
    "data__folder__masks": "masks",
    "cams__long_side": 64,
    "cams__scales": [1.0],
    "bg_thresh": "colours",
    "report__gallery": 1,
}
TINY_TOKENS: dict[str, Any] = {"localizer__toco__crop": 32, "localizer__toco__decoder_width": 8}
METHODS: dict[str, dict[str, Any]] = {
    "cam": {},
    "supervised": {},
    "irn": {},
    "affinitynet": {},
    "amn": {},
    "esol": {},
    "adcam": {"cams__rules": ["adcam", "none"]},
    "bao": {"localizer__bao__target_schedule": ["0:share"], "localizer__bao__track": 2},
    "toco": TINY_TOKENS,
    "dual_branch": TINY_TOKENS,
}
"""Each with the knobs that make it small; those that share a classifier stand together."""

OWN_TRAINING = {
    "amn": "localizer",
    "esol": "localizer",
    "bao": "localizer",
    "toco": "localizer",
    "dual_branch": "localizer",
    "irn": "affinity",
    "affinitynet": "affinity",
}

Told = dict[str, Any]
Loaded = tuple[str, str, set[Path]]


def fresh(stage: str) -> Any:
    """A stage's module, loaded with all that it imports of this project as if no module of it were there."""
    for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
        del sys.modules[name]
    return import_module(f"pipeline.{stage}" + (".__main__" if stage == "report" else ""))


STAGES = (
    "prepare_data",
    "train_classifier",
    "train_localizer",
    "extract_cams",
    "train_affinity",
    "refine_cams",
    "choose_background",
    "make_masks",
    "train_segmenter",
    "predict",
    *(f"evaluate {name}" for name in EVALUATED),
    "report",
)
"""As their commands name them, in order."""


def load_all() -> list[Loaded]:
    """For each method and stage the files of this project that are loaded when it runs in the current folder.

    As with DVC, a stage runs where it is told something else than before.
    """
    before: dict[str, Told] = {}
    found: list[Loaded] = []
    for method, changes in METHODS.items():
        configure(method=method, **TINY, **changes)
        for command in STAGES:
            stage = command.replace(" ", "_")
            if (now := own_part(read_json(CONFIG / f"{stage}.json", "configure"))) != before.get(stage):
                found.append((method, stage, load(command)))
                before[stage] = now
    return found


def own_part(config: Told) -> Told:
    """What a stage is told of its own work: scores and the page are told of the stages before them too."""
    code = config["code"]
    own = {"code": code["evaluate"] if isinstance(code, dict) else code}
    return {key: value for key, value in config.items() if key not in ("protocol", "params")} | own


def load(command: str) -> set[Path]:
    """The files that are loaded when a stage runs."""
    machine, runtime = here(), told("runtime", Runtime)
    name, *arguments = command.split()
    sys.argv = [name, *arguments]
    fresh(name).main(runtime if name in LIGHT else machine)
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] in PACKAGES]
    return {Path(str(module.__file__)) for module in modules}


def write_folder() -> None:
    """Photographs with their table of tags, and masks."""
    lines = ["image,labels,split"]
    for record in write_photographs(Path(), val=2).records:
        lines.append(f"{record.image},{'|'.join(record.tags)},{record.split}")
        write_mask(Path(PHOTOGRAPHS, "masks", record.image), np.eye(*record.size, dtype=np.uint8))
    Path(PHOTOGRAPHS, "labels.csv").write_text("\n".join(lines))


def has_code(path: Path) -> bool:
    """Whether there is more in a module than its docstring."""
    (first, *more) = without_docstrings(ast.parse(path.read_text(encoding="utf-8"))).body
    return bool(more) or not isinstance(first, ast.Pass)


def test_digest_covers_what_stages_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(futures, "ProcessPoolExecutor", InlinePool)
    write_folder()
    ended = forked(load_all)
    assert ended.status == 0
    ran = {(method, stage) for method, stage, _ in ended.value}
    assert {stage for _, stage in ran} == {command.replace(" ", "_") for command in STAGES}
    own = [(name, f"train_{kind}") for name, kind in OWN_TRAINING.items()]
    assert set(own) | {(name, "extract_cams") for name in ("adcam", "bao", "toco", "dual_branch", "amn", "esol")} <= ran
    for method, stage, files in ended.value:
        entries = stage_entries(resolve(shipped(method=method, **TINY, **METHODS[method])))
        name = "evaluate" if stage in SCORED else stage
        chosen = MODULE.findall(" ".join(map(repr, entries.get(name, []))))
        unknown = files - imported([f"pipeline.{name}", *chosen]) - {ROOT / TABLES}
        assert not {path for path in unknown if has_code(path)}, f"{stage} of {method}"
