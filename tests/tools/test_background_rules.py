"""The comparison of background rules: what every rule and candidate reaches on a finished working copy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.data.manifest import Record, load_manifest
from pipeline.maps.background_rules import SET_RULES, STEPS, highest, histogram
from tests.support.project import PHOTOGRAPHS, TAGS, coarse, configure, write_masks, write_photographs
from tests.support.store import write_store
from tools import background_rules
from tools.background_rules import CANDIDATES, cross_entropy, minimum_error, share


def test_share_is_the_mean_of_the_values() -> None:
    values = np.linspace(0, 1, 10_001, dtype=np.float32) ** 3  # mean 1/4, which the highest quarter exceeds at 0.75^3
    assert highest(share(histogram(values))) == pytest.approx(0.75**3, abs=2 / STEPS)


@pytest.mark.parametrize("rule", [cross_entropy, minimum_error])
def test_two_groups_are_parted(rule: background_rules.Merit) -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.2, 0.04, 3000), rng.normal(0.7, 0.06, 1000)]).astype(np.float32)
    assert 0.3 < highest(rule(histogram(values))) < 0.6
    assert highest(rule(np.zeros(STEPS + 1))) == 1


def test_every_rule_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path, TAGS, paint=coarse)

    def square(_: int, record: Record) -> np.ndarray:
        mask = np.zeros(record.size, np.uint8)
        mask[10:30, 10:30] = (load_manifest().class_ids(record) or [0])[0]
        return mask

    write_masks(tmp_path, load_manifest(), square)
    write_store(Path("data/refined"), 0)
    configure(tmp_path, data__name="folder", data__root=PHOTOGRAPHS)
    monkeypatch.setattr("sys.argv", ["background_rules", str(tmp_path)])
    background_rules.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    names = {*SET_RULES, *CANDIDATES, "otsu", "none", "crf", "best for maps", "best for masks"}
    assert names <= {line.split(" | ")[0].removeprefix("| ") for line in lines}
    assert all("nan" not in line and "| -" not in line.split(" | ", 2)[-1] for line in lines), "no gap is below 0"
