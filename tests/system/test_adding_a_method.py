"""The examples of docs/adding_a_method.md, put into a copy of the repository and run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT
from tools.smoke import copy_repository, run

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs/adding_a_method.md"
FILE = re.compile(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INSERT = re.compile(r"^<!-- insert into (\S+) after: ([^\n]+) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MOST_LINES_ELSEWHERE = 3


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with everything that the page adds."""
    folder = copy_repository(tmp_path_factory.mktemp("extended"))
    page = PAGE.read_text(encoding="utf-8")
    for name, content in FILE.findall(page):
        path = folder / name
        assert not path.exists(), f"{name} is new"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    for name, line, added in INSERT.findall(page):
        before, found, after = (folder / name).read_text(encoding="utf-8").partition(f"{line}\n")
        assert found, f"{name} has no line {line!r}"
        (folder / name).write_text(before + found + added + after, encoding="utf-8")
    return folder


def new_files() -> list[str]:
    return [name for name, _ in FILE.findall(PAGE.read_text(encoding="utf-8"))]


def configure(folder: Path, **knobs: Any) -> dict[str, Any]:
    """What extract_cams and train_localizer are told with some knobs set."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for name, value in knobs.items():
        params[name] = (params.get(name) or {}) | value if isinstance(value, dict) else value
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    run(sys.executable, "-m", "pipeline.configure", cwd=folder, quiet=True)
    stages = ("extract_cams", "train_localizer")
    return {stage: json.loads((folder / f"data/config/{stage}.json").read_text()) for stage in stages}


def test_so_many_lines_elsewhere() -> None:
    added = [line for *_, lines in INSERT.findall(PAGE.read_text(encoding="utf-8")) for line in lines.splitlines()]
    assert 0 < len(added) <= MOST_LINES_ELSEWHERE


def test_their_own_tests_pass(extended: Path) -> None:
    tests = [name for name in new_files() if name.startswith("tests/")]
    output = run(sys.executable, "-m", "pytest", *tests, cwd=extended, quiet=True)
    assert "3 passed" in output


def test_they_meet_the_rules_of_the_house(extended: Path) -> None:
    run("ruff", "check", *(name for name in new_files() if name.endswith(".py")), cwd=extended, quiet=True)
    run("ruff", "format", "--check", *(name for name in new_files() if name.endswith(".py")), cwd=extended, quiet=True)


def test_the_rule_can_be_named_and_its_knob_set(extended: Path) -> None:
    told = configure(extended, method="transcam", cams={"rules": ["sharpened:power=4", "none"]})
    assert told["extract_cams"]["rules"] == ["sharpened:power=4", "none"]


def test_a_wrong_knob_of_the_rule_is_refused(extended: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        configure(extended, method="transcam", cams={"rules": ["sharpened:strength=4"]})
    assert "strength" in caught.value.stderr and "power" in caught.value.stderr
    assert "Traceback" not in caught.value.stderr


def test_the_method_can_be_chosen(extended: Path) -> None:
    told = configure(extended, method="erase")["train_localizer"]
    assert told["network"] == "erase" and "above" in json.dumps(told)
