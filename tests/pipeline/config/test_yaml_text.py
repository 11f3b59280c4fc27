"""YAML is read as DVC reads and writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml, loads_yaml
from yaml import YAMLError

from pipeline.config.load import load_params, read_params
from pipeline.config.params import Params
from pipeline.config.yaml_text import parsed
from pipeline.run.errors import UserError
from tests.support.knobs import SHIPPED
from tools.status import leaves


@pytest.mark.parametrize(
    ("setting", "name", "value"),
    [
        ("+classifier.optimisation.lr=0.00001", "classifier.optimisation.lr", 1e-5),
        ("bg_thresh=1e-5", "bg_thresh", 1e-5),
        ("data.classes=[on,no]", "data.classes", ["on", "no"]),
        ("data.root=12:30", "data.root", "12:30"),
    ],
)
def test_what_dvc_writes_is_read_as_it_was_given(tmp_path: Path, setting: str, name: str, value: Any) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(SHIPPED.read_text(encoding="utf-8"), encoding="utf-8")
    apply_overrides(path, [setting])
    assert read_params(path) == load_yaml(path)
    params: Params = load_params(path)
    assert leaves(params.model_dump(mode="json"))[name] == value


@pytest.mark.parametrize(
    "text",
    [
        "a: 1e-05\nb: -2.5E+3\nc: .5\nd: 7\ne: -0\nf: 1.\ng: .inf",
        "a: no\nb: on\nc: True\nd: false\ne: ~\nf:\ng: null\nh: none",
        "a: 12:30\nb: 1e\nc: '1e3'\nd: [x, 1e3, y]\ne: {z: 1}\nf: 1_000x\ng: 1-2",
    ],
)
def test_words_are_what_dvc_takes_them_for(text: str) -> None:
    assert parsed(text) == loads_yaml(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"method: cam\nseed: 0\nmethod: irn\n", r"the key 'method' stands twice(.|\n)*line 3"),
        (b"data:\n  limit: 1\n  limit: 2\n", "the key 'limit' stands twice"),
        (b"a: &x [1]\nb: *x\n", r"aliases \(\*name\) are not read"),
        (b"a: " + b"[" * 5000, "nests too deeply|not readable"),
        (b"method: cam\n# caf\xe9\n", "line 2: byte 0xe9 is not UTF-8"),
    ],
)
def test_files_that_say_something_else_than_they_seem_are_refused(tmp_path: Path, text: bytes, words: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(text)
    with pytest.raises(UserError, match=words):
        read_params(path)


@pytest.mark.parametrize(
    "text", ["a: !!int zero", "a: !!float x", "a: !!bool maybe", "a: !!timestamp foo", f"a: {'9' * 5000}"]
)
def test_values_that_are_not_what_they_are_called(text: str) -> None:
    with pytest.raises(YAMLError):
        parsed(text)
