"""The digest of the code that a stage runs: what changes it, what does not, and whose it is."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models.registry import CLASSIFIERS, METHODS, Method
from pipeline.config import code
from pipeline.config.code import LENGTH, PACKAGES, TEMPLATES, code_digest, imported
from pipeline.config.load import resolve
from pipeline.config.stages import SCORED, UPSTREAM, stage_configs, stage_entries
from pipeline.scoring.artefacts import EVALUATED
from tests.support import ROOT
from tests.support.knobs import shipped

Edit = Callable[[str, str], None]
SCORED_AFTER_REFINEMENT = {"evaluate_refined", "evaluate_masks", "evaluate_segmenter"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's code."""
    folder = tmp_path_factory.mktemp("code")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def edit(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edit]:
    """Gives a module of the copy another text, until the test ends; the digests are those of the copy."""
    monkeypatch.setattr(code, "ROOT", tree)
    before: dict[Path, str] = {}

    def write(module: str, text: str) -> None:
        path = tree / module
        before.setdefault(path, path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")

    yield write
    for path, text in before.items():
        path.write_text(text, encoding="utf-8")


def digests(method: str) -> dict[str, object]:
    """The code that each stage is told."""
    return {stage: told["code"] for stage, told in stage_configs(resolve(shipped(method=method))).items()}


def changed_by(edit: Edit, module: str, added: str, *methods: str) -> list[set[str]]:
    """Which stages' digests differ after some text was added to a module, for each method."""
    before = [digests(method) for method in methods]
    edit(module, (code.ROOT / module).read_text(encoding="utf-8") + added)
    after = [digests(method) for method in methods]
    return [{stage for stage in old if old[stage] != new[stage]} for old, new in zip(before, after, strict=True)]


def test_every_stage_is_told_the_digest_of_its_code() -> None:
    told = digests("cam")
    own = {stage: digest for stage, digest in told.items() if stage not in SCORED}
    assert all(isinstance(digest, str) and len(digest) == LENGTH for digest in own.values())
    assert len(set(own.values())) == len(own)
    for name in EVALUATED:
        upstream = {stage: own[stage] for stage in UPSTREAM[name]}
        assert told[f"evaluate_{name}"] == upstream | {"evaluate": code_digest("pipeline.evaluate")}


@pytest.mark.parametrize("module", ["models/refine/walk.py", "models/maps.py", "pipeline/run/files.py"])
def test_docstrings_and_comments_do_not_count(edit: Edit, module: str) -> None:
    text = (code.ROOT / module).read_text(encoding="utf-8")
    before = digests("irn")
    assert '"""' in text
    edit(
        module, "# A comment.\n" + text.replace('"""', '"""Another word. ', 1) + '\n\n"""A text that stands alone."""\n'
    )
    assert digests("irn") == before
    edit(module, text + "\n\nLAST = 'a text that is a value'\n")
    assert digests("irn") != before


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ('"""A."""\nx = 1', '"""B."""\nx = 1  # one', True),
        ("def f():\n    'A.'", "def f():\n    'B.'", True),
        ("class A:\n    'A.'\n    x = 1\n    'x'", "class A:\n\n    x = 1", True),
        ("x = (1 +\n  2)", "x = 1 + 2", True),
        ("x = 'a'", "x = 'b'", False),
        ("x = 1", "x = 2", False),
        ("f('A')", "f('B')", False),
        ("def f(): return 1", "def f(): return 1.0", False),
    ],
)
def test_only_meaning_counts(one: str, other: str, same: bool) -> None:
    assert (code._digest(one, ".py") == code._digest(other, ".py")) is same


def test_walk_belongs_to_refinement_alone(edit: Edit) -> None:
    expected = {"refine_cams", *SCORED_AFTER_REFINEMENT}
    assert changed_by(edit, "models/refine/walk.py", "\nADDED = 1\n", "irn", "cam") == [expected, expected]


def test_bao_belongs_to_bao_alone(edit: Edit) -> None:
    trained = {"train_localizer", *SCORED}
    others: list[set[str]] = [set() for _ in METHODS]
    assert changed_by(edit, "models/bao/network.py", "\nADDED = 1\n", "toco", "bao", "irn") == [
        set(),
        {"extract_cams", *trained},
        set(),
    ]
    assert changed_by(edit, "models/bao/task.py", "\nADDED = 1\n", "toco", "bao") == [set(), trained]
    untouched = [method for method in METHODS if method != "bao"]
    assert changed_by(edit, "models/bao/target.py", "\nADDED = 1\n", *untouched, "cam") == others


def test_declaring_a_knob_counts_for_its_readers_alone(edit: Edit) -> None:
    assert changed_by(edit, "models/esol/knobs.py", "\nADDED = 1\n", "cam", "toco") == [set(), set()]
    assert changed_by(edit, "pipeline/config/params.py", "\nADDED = 1\n", "cam", "toco") == [set(), set()]
    (found,) = changed_by(edit, "models/segmenters/knobs.py", "\nADDED = 1\n", "cam")
    assert found == {"train_segmenter", "predict", "evaluate_segmenter"}


def test_a_rule_counts_where_it_is_asked_for(edit: Edit) -> None:
    maps = {"extract_cams", *SCORED} - {"evaluate_localizer"}
    found = changed_by(edit, "models/propagation/rules/adcam.py", "\nADDED = 1\n", "adcam", "transcam", "cam")
    assert found == [maps, set(), set()]


def test_templates_count(edit: Edit) -> None:
    assert [path.name for path in (ROOT / "pipeline").rglob(TEMPLATES)] == ["report.html.j2"]
    assert changed_by(edit, "pipeline/report/report.html.j2", "<p>", "cam") == [{"report"}]


def test_tables_count_through_chosen_entries_alone(edit: Edit, monkeypatch: pytest.MonkeyPatch) -> None:
    assert changed_by(edit, "models/registry.py", "\nADDED = 1\n", "cam", "toco", "bao") == [set(), set(), set()]
    before = {method: digests(method) for method in ("cam", "toco", "esol")}
    monkeypatch.setitem(METHODS, "new", Method("models.toco.task", "toco", ("toco",)))
    assert {method: digests(method) for method in before} == before
    monkeypatch.setitem(METHODS, "esol", METHODS["esol"]._replace(earlier=("expansion", "baseline")))
    assert digests("cam") == before["cam"] and digests("toco") == before["toco"]
    assert {stage for stage, one in digests("esol").items() if one != before["esol"][stage]} == {
        "train_localizer",
        *SCORED,
    }
    lite0 = CLASSIFIERS["efficientnet_lite0"]
    monkeypatch.setitem(CLASSIFIERS, "efficientnet_lite0", lite0._replace(arguments={"backbone": "resnet50"}))
    assert digests("toco") == before["toco"]
    assert digests("cam")["train_classifier"] != before["cam"]["train_classifier"]


def test_data_set_counts_where_it_is_read(edit: Edit) -> None:
    assert changed_by(edit, "pipeline/data/sources/voc2012.py", "\nADDED = 1\n", "cam") == [set()]
    (found,) = changed_by(edit, "pipeline/data/sources/scenes.py", "\nADDED = 1\n", "cam")
    assert found == {"prepare_data", *SCORED}


def test_ground_truth_is_imported_by_its_check_evaluate_and_report_alone() -> None:
    stages = sorted({"evaluate" if stage in SCORED else stage for stage in digests("cam")})
    module, readers = ROOT / "pipeline/data/ground_truth.py", ["evaluate", "prepare_data", "report"]
    assert [stage for stage in stages if module in imported([f"pipeline.{stage}"])] == readers
    # Full supervision alone loads it in make_masks, by name.
    entries = {method: stage_entries(resolve(shipped(method=method))) for method in ("cam", "supervised")}
    reads = {
        method: [s for s, named in found.items() if module in imported([n for n in named if isinstance(n, str)])]
        for method, found in entries.items()
    }
    assert reads == {"cam": [], "supervised": ["make_masks"]}


DYNAMIC = {
    "pipeline/config/code.py",  # versions of libraries
    "models/build.py",
    "models/propagation/rules/__init__.py",
    "pipeline/make_masks.py",
    "pipeline/predict.py",  # the command for other photographs, no part of the stage
    "pipeline/prepare_data.py",
    "pipeline/train_localizer.py",
}


def test_modules_are_imported_by_name_in_seven_places_that_the_digest_knows() -> None:
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                named = isinstance(node, ast.Name) and node.id == "__import__"
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                modules += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
                if named or {"importlib", "runpy"} & {module.split(".")[0] for module in modules}:
                    found.add(str(path.relative_to(ROOT)))
    assert found == DYNAMIC
