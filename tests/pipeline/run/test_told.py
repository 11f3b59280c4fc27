"""What a stage is told is read once, and checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.refine_cams import RefineCamsConfig
from pipeline.run.errors import UserError
from pipeline.run.files import write_json
from pipeline.run.told import CONFIG, Runtime, told
from tests.support.stages import LOCAL


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_what_configure_wrote_is_read() -> None:
    write_json(CONFIG / "refine_cams.json", {"rule": "par", "code": "0123456789abcdef"})
    config = told("refine_cams", RefineCamsConfig)
    assert (config.rule, config.code) == ("par", "0123456789abcdef")
    write_json(CONFIG / "runtime.json", LOCAL | {"root": "photographs"})
    assert told("runtime", Runtime).folder == Path("photographs")


def test_before_configure_it_is_said_what_to_run() -> None:
    with pytest.raises(UserError, match=r"refine_cams\.json not found; run `dvc repro`"):
        told("refine_cams", RefineCamsConfig)


@pytest.mark.parametrize("text", ["{", "\udcff", '{"rule": "walk"}', '{"rule": "par", "steps": 3}', "[]"])
def test_other_content_is_refused(text: str) -> None:
    CONFIG.mkdir(parents=True)
    (CONFIG / "refine_cams.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"refine_cams\.json is not what configure writes"):
        told("refine_cams", RefineCamsConfig)
