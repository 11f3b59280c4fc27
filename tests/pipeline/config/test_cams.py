"""Knobs of the activation maps: rules by name, their groups, entries with knobs, and what stages are told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from models.maps import FUSIONS
from models.propagation import rules
from models.propagation.rules import rule_names
from pipeline.config.cams import CamsKnobs
from tests.support import ROOT


def cams(*names: str, **knobs: Any) -> CamsKnobs:
    return CamsKnobs.model_validate({"rules": list(names or ("none",)), "long_side": None, "batch": 2} | knobs)


def given(config: CamsKnobs, text: str) -> dict[str, Any]:
    """The knobs of an entry."""
    return config.rule(text)[1].model_dump()


def test_defaults_are_the_published_ones() -> None:
    config = CamsKnobs(long_side=None, batch=2)
    assert (config.rules, config.scales, config.square, config.fusion) == (["none"], [0.5, 1.0, 1.5, 2.0], False, "max")
    assert config.max_tokens == 4096


def test_rules_take_knobs_of_their_own() -> None:
    names = ["adcam", "adcam:gamma=0,steps=3", "caa:box_mask=0.7,blocks=2", "caa", "adcam:self_loop=lazy:0.5"]
    config = cams(*names, adcam={"gamma": 3, "steps": 1})
    assert [config.rule(text)[0] for text in names] == ["adcam", "adcam", "caa", "caa", "adcam"]
    adcams, caas = [given(config, names[n]) for n in (0, 1, 4)], [given(config, names[n]) for n in (2, 3)]
    assert [knobs["gamma"] for knobs in adcams] == [3, 0, 3], "an entry's own knobs win over the group"
    assert [knobs["steps"] for knobs in adcams] == [1, 3, 1]
    assert [knobs["steps"] for knobs in caas] == [2, 2], "each rule keeps its published steps"
    assert [knobs["box_mask"] for knobs in (*adcams, *caas)] == [None, None, None, 0.7, 0.4]
    assert [knobs["blocks"] for knobs in caas] == [2, 8] and adcams[2]["self_loop"] == "lazy:0.5"
    assert given(cams("adcam:topk=none,steps=closed,mode=ppr"), "adcam:topk=none")["topk"] is None


def test_one_rule_may_be_a_single_word() -> None:
    assert cams(rules="none").rules == ["none"]


@pytest.mark.parametrize(
    ("names", "groups", "expected"),
    [
        (["diffuse"], {}, "cams.rules: no rule 'diffuse'; allowed are adcam, aux, baseline"),
        (["none", "none"], {}, "'none' is there twice"),
        (["adcam", "adcam:gamma=2.0"], {}, "'adcam:gamma=2.0' is there twice"),
        (["adcam:gama=1"], {}, "'adcam:gama=1': adcam reads blocks, similarity, gamma"),
        (["transcam:gamma=1"], {}, "transcam reads blocks, not 'gamma'"),
        (["none:blocks=1"], {}, "none reads no knobs, not 'blocks'"),
        (["adcam:gamma=-1"], {}, "'adcam:gamma=-1': gamma: Input should be greater than or equal to 0"),
        (["adcam:gamma=["], {}, "rules.0"),
        (["adcam:gamma=0 #/../../x"], {}, "rules.0"),
        (["../none"], {}, "rules.0"),
        (["ppr:alpha=1"], {}, "'ppr:alpha=1': a walk that never restarts"),
        (["caa:steps=closed"], {}, "'caa:steps=closed': steps: "),
        (
            ["adcam"],
            {"adcam": {"self_loop": "lazy"}},
            "adcam: self_loop: self_loop is rowmax, keep, zero or lazy:",
        ),
        (["adcam"], {"adcam": {"steps": "closed"}}, "cams.adcam: steps = closed needs mode = ppr"),
        (["none"], {"adcam": {"gama": 1}}, "cams.adcam: adcam reads blocks, similarity, gamma"),
        (["none"], {"adcam": 3}, "adcam\n  Input should be a valid dictionary"),
        (["none"], {"adcamm": {"gamma": 1}}, "adcamm\n  Extra inputs are not permitted"),
        (["none"], {"max_tokens": 0}, "max_tokens\n  Input should be greater than or equal to 1"),
        (["none"], {"fusion": "scores"}, "fusion\n  Input should be 'max', 'minmax' or 'toco'"),
    ],
)
def test_wrong_knobs_are_named(names: list[str], groups: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        cams(*names, **groups)
    assert expected in str(caught.value)


def test_groups_are_written_as_they_are_read() -> None:
    config = cams("adcam:steps=1", adcam={"gamma": 0}, caa=None)
    written = config.model_dump(mode="json")
    assert written["adcam"] == {"gamma": 0} and "rule_knobs" not in written
    assert CamsKnobs.model_validate(json.loads(json.dumps(written))) == config


def test_stages_are_told_of_chosen_rules_alone() -> None:
    groups = {"adcam": {"gamma": 0}, "caa": {"steps": 1}}
    told = cams("caa:steps=3", "none", **groups).told()
    assert told["caa"] == {"steps": 1} and "adcam" not in told
    assert CamsKnobs.model_validate(told).rule("caa:steps=3")[1].model_dump()["steps"] == 3
    assert cams("none", **groups).told() == cams("none").told()


def test_plain_maps_are_configured_without_pytorch() -> None:
    program = """
import sys
from pipeline.config.cams import CamsKnobs
config = CamsKnobs.model_validate({"rules": ["none", "aux", "baseline", "expansion"], "long_side": None, "batch": 1})
config.told()
assert "torch" not in sys.modules
CamsKnobs.model_validate({"rules": ["none", "transcam"], "long_side": None, "batch": 1})
assert "models.propagation.rules.transcam" in sys.modules and "models.propagation.rules.adcam" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_fusions_are_those_that_there_are() -> None:
    assert {*get_args(CamsKnobs.model_fields["fusion"].annotation), "scores"} == set(FUSIONS)


def test_no_rule_has_the_name_of_another_knob() -> None:
    assert not set(rule_names()) & set(CamsKnobs.model_fields)


def test_a_new_rule_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scaled2.py").write_text(
        "from models.knobs import Positive, knob\n"
        "from models.propagation.rule import Rule, RuleKnobs\n"
        "class Knobs(RuleKnobs):\n"
        '    factor: Positive = knob(2.0, "of the map")\n'
        'RULE = Rule(lambda activation, _observation, _grid, knobs: knobs.factor * activation, Knobs, "M\' = 2 M")\n'
    )
    monkeypatch.setattr(rules, "__path__", [*rules.__path__, str(tmp_path)])
    config = cams("scaled2", "scaled2:factor=3", scaled2={"factor": 5})
    assert [given(config, text) for text in config.rules] == [{"factor": 5}, {"factor": 3}]
    with pytest.raises(ValidationError, match="factor: Input should be greater than 0"):
        cams("scaled2:factor=0")
    del sys.modules[f"{rules.__name__}.scaled2"]


def test_small_numbers_in_an_entry_are_numbers() -> None:
    assert given(cams("adcam"), "adcam:tau=1e-5")["tau"] == 1e-5


def test_knobs_of_rules_are_set_in_groups_alone() -> None:
    with pytest.raises(ValidationError, match=r"rule_knobs: .*cams\.<rule>"):
        cams(rule_knobs={"adcam": {"gamma": 0}})
