"""dvc.yaml: everything declared where it is written, code known by its digest alone, and the traps of DVC."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.code import PACKAGES
from pipeline.config.load import resolve
from pipeline.config.stages import stage_configs
from pipeline.scoring.artefacts import ARTEFACTS, EVALUATED
from tests.support import ROOT
from tests.support.knobs import shipped

LONGEST = 230
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
BANNED = (
    r"^\s*(import|from) (dvc|pickle)\b",
    r"allow_pickle\s*=\s*True",
    r"weights_only\s*=\s*False",
    r"yaml\.(load|unsafe_load|full_load)\(",
    r"shell\s*=\s*True",
    r"(?<![.\w])(eval|exec)\(",
)
SOURCES = sorted([*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "models").rglob("*.py")])


def stages() -> dict[str, dict[str, Any]]:
    """Every stage with `foreach` written out."""
    found: dict[str, dict[str, Any]] = {}
    for name, stage in PIPELINE["stages"].items():
        if "foreach" in stage:
            for key, item in stage["foreach"].items():
                text = yaml.safe_dump(stage["do"]).replace("${key}", key)
                for name_of, value in item.items():
                    text = text.replace(f"${{item.{name_of}}}", value)
                found[f"{name}@{key}"] = yaml.safe_load(text)
        else:
            found[name] = stage
    return found


def paths(entries: list[Any]) -> list[str]:
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def test_file_is_short_and_names_no_modules() -> None:
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST and ".py" not in text
    for name, stage in stages().items():
        code = {path for path in stage["deps"] if path.split("/")[0] in PACKAGES}
        assert code == (set(PACKAGES) if name == "configure" else set()), name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_imports_only_what_the_digest_follows(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module and node.module.split(".")[0] not in ("tools", "tests")
        elif isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & {"tools", "tests"}


def test_stages_of_dvc_are_those_that_are_told_of_their_code() -> None:
    told = stage_configs(resolve(shipped()))
    assert {name.replace("@", "_") for name in stages()} == {"configure", *told}
    assert all(config["code"] for config in told.values())


@pytest.mark.parametrize("name", stages())
def test_dependencies_exist_or_are_made(name: str) -> None:
    made = {
        path
        for stage in stages().values()
        for kind in ("outs", "metrics", "plots")
        for path in paths(stage.get(kind, []))
    }
    for dependency in stages()[name]["deps"]:
        above = {str(parent) for parent in (Path(dependency), *Path(dependency).parents)}
        assert "$" in dependency or above & made or (ROOT / dependency).exists(), dependency


def test_folders_that_stages_depend_on_in_parts_are_declared_in_parts() -> None:
    """Of such a folder DVC wants the version in dvc.lock when it restores a stage; a clone has no cache of it."""
    outs = {path for stage in stages().values() for path in paths(stage.get("outs", []))} - {"data/config"}
    for name, stage in stages().items():
        for dependency in stage["deps"]:
            inside = {str(parent) for parent in Path(dependency).parents} & outs
            assert not inside, f"{name} depends on a part of {inside}"


def test_no_training_depends_on_maps_of_validation_photographs() -> None:
    readers = {name for name, stage in stages().items() if any("data/validation" in path for path in stage["deps"])}
    assert readers == {"refine_cams", "make_masks", "evaluate@seeds", "evaluate@refined"}
    masks = {name for name, stage in stages().items() if "data/validation/masks" in stage["deps"]}
    assert not masks, "masks of validation photographs are for people"


def test_only_configure_reads_params() -> None:
    assert [name for name, stage in stages().items() if "params" in stage] == ["configure"]


@pytest.mark.parametrize("name", [name for name in stages() if name != "configure"])
def test_each_stage_is_told_by_its_own_file_alone(name: str) -> None:
    told = [path for path in stages()[name]["deps"] if path.startswith("data/config")]
    assert told == [f"data/config/{name.replace('@', '_')}.json"]


@pytest.mark.parametrize("name", stages())
def test_metrics_and_plots_stay_in_git_and_nothing_persists(name: str) -> None:
    stage = stages()[name]
    assert "persist" not in yaml.safe_dump(stage)
    for kind in ("metrics", "plots"):
        for entry in stage.get(kind, []):
            ((path, options),) = entry.items()
            assert options["cache"] is False and path.startswith("metrics/"), path
    # Others outside DVC's cache would keep their stage out of the run cache: it would run again at every change back.
    assert all(isinstance(path, str) and path.startswith("data/") for path in stage.get("outs", []))


def test_every_artefact_has_details_and_only_some_have_numbers() -> None:
    made = {path for stage in stages().values() for kind in ("metrics", "plots") for path in paths(stage.get(kind, []))}
    json = {path.removeprefix("metrics/") for path in made if path.endswith(".json")}
    counted = {f"{name}.json" for name in ("classifier", *ARTEFACTS)}
    assert json == counted | {f"details/{name}.json" for name in ("classifier", *EVALUATED)}
    shown = [*PIPELINE["metrics"], *(path for stage in stages().values() for path in paths(stage.get("metrics", [])))]
    assert sorted(shown) == sorted(f"metrics/{name}" for name in counted), "what `dvc metrics show` prints"


def test_nothing_is_listed_only_at_the_top() -> None:
    made = {path for stage in stages().values() for kind in ("metrics", "plots") for path in paths(stage.get(kind, []))}
    for path in PIPELINE.get("metrics", []):
        assert path in made
    for plot in PIPELINE.get("plots", []):
        for path in plot if isinstance(plot, dict) else [plot]:
            assert any(path.startswith(output) for output in made), path


def test_ignored_by_dvc_and_quiet() -> None:
    ignored = (ROOT / ".dvcignore").read_text().split()
    assert {"__pycache__/", ".resume"} <= set(ignored)
    config = (ROOT / ".dvc/config").read_text()
    assert re.search(r"analytics = false", config) and "type" not in config


RESTRICTED = Path("pipeline/data/arrays.py")
"""Arrays of other programs are pickles; its reader knows the names of arrays alone."""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_is_safe_and_free_of_dvc(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.relative_to(ROOT) == RESTRICTED:
        assert "class _Unpickler(pickle.Unpickler)" in text and "def find_class" in text
        text = text.replace("import pickle", "", 1)
        assert len(re.findall(r"pickle\.", text)) == 1, "for nothing but that class"
    for banned in BANNED:
        assert not re.search(banned, text, re.MULTILINE), banned
