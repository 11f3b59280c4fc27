"""What tests stand on does what it says."""

from __future__ import annotations

import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml

from pipeline.config.load import load_params
from pipeline.maps.per_photograph import map_photographs
from pipeline.maps.store import CamEntry, shard_path, write_shard
from pipeline.run import pool
from tests.support.knobs import SHIPPED, set_knobs, shipped
from tests.support.processes import forked, several
from tests.support.project import PHOTOGRAPHS, configure, write_photographs
from tests.support.stages import InlinePool, config_class, here
from tools.status import leaves

FILLED = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))


def test_shipped_knobs_are_changed_and_groups_are_made() -> None:
    assert shipped() == FILLED
    changed = shipped(seed=3, data__scenes__train=8, localizer__toco__crop=64, affinity__radius=4)
    assert changed["seed"] == 3 and changed["data"]["scenes"] == FILLED["data"]["scenes"] | {"train": 8}
    assert changed["localizer"]["toco"] == {"crop": 64} and changed["affinity"] == {"radius": 4}
    assert shipped() == FILLED, "nothing is left of it"


def test_knobs_are_set_in_a_file(tmp_path: Path) -> None:
    path = shutil.copyfile(SHIPPED, tmp_path / "params.yaml")
    set_knobs(path, {"data.scenes.train": 8, "localizer.toco.crop": 64})
    assert yaml.safe_load(path.read_text()) == shipped(data__scenes__train=8, localizer__toco__crop=64)
    assert load_params(path).localizer.toco.crop == 64


def test_leaves_are_dotted() -> None:
    assert leaves({"a": {"b": {"c": 1}, "d": [2]}, "e": None}) == {"a.b.c": 1, "a.d": [2], "e": None}


def test_forks_tell_how_they_ended() -> None:
    value = object()
    assert forked(lambda: (torch.get_num_threads(), 1)) == (0, (1, 1))
    assert forked(lambda: os.kill(os.getpid(), signal.SIGKILL)) == (-signal.SIGKILL, None)
    assert forked(lambda: [][0]).status == 1
    assert forked(lambda: id(value)).value == id(value), "a fork starts as this process is"


def test_several_forks_find_what_torchrun_would_say() -> None:
    ended = several(2, lambda: [os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")])
    assert [process.status for process in ended] == [0, 0]
    (first, second) = (process.value for process in ended)
    assert first[:3] == ["0", "0", "2"] and second[:3] == ["1", "1", "2"] and first[3] == second[3]
    assert "RANK" not in os.environ


def shard_and_id(shard: Path, record: object) -> tuple[str, str]:
    return shard.name, str(record.id)  # type: ignore[attr-defined]


def test_pools_are_stood_in_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pool.ProcessPoolExecutor is InlinePool, "in every test"
    manifest = write_photographs(tmp_path)
    maps = (torch.zeros(0, 2, 2),)
    entries = [CamEntry(record.id, record.size, (), maps, (record.size,)) for record in manifest.records]
    write_shard(shard_path(tmp_path / "store", 0), entries[:2], {})
    write_shard(shard_path(tmp_path / "store", 1), entries[2:], {})
    here_and_now = map_photographs(shard_and_id, tmp_path / "store", manifest.records, "", 2)
    monkeypatch.setattr(pool, "ProcessPoolExecutor", lambda most, *_, **__: ThreadPoolExecutor(most))
    assert map_photographs(shard_and_id, tmp_path / "store", manifest.records, "", 2) == here_and_now
    assert [name for _, name in here_and_now] == [record.id for record in manifest.records]


def test_stages_find_what_they_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_photographs(Path())
    params = configure(method="irn")
    assert here().root == Path(PHOTOGRAPHS) and params.method == "irn"
    names = sorted(path.stem for path in Path("data/config").iterdir())
    for name in names:
        if name != "runtime":
            config_class(name).model_validate(json.loads(Path(f"data/config/{name}.json").read_text()))
    assert config_class("evaluate_seeds") is config_class("evaluate_masks")
