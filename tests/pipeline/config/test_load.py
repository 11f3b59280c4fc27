"""params.yaml: what it may hold, what the shipped one holds, and what is said of wrong knobs."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ruamel.yaml import YAML

from pipeline.config import load
from pipeline.config.load import load_params, resolve
from pipeline.config.params import Params
from pipeline.config.presets import Layer, layers
from pipeline.maps.background_rules import RULES
from pipeline.run.errors import UserError
from tests.support.knobs import SHIPPED, shipped
from tools.status import leaves

LONGEST = 70


def test_both_yaml_loaders_agree() -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    assert yaml.safe_load(text) == YAML(typ="safe").load(text)


def test_params_are_one_screen_in_block_style_and_documented() -> None:
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST
    for line in lines:
        if line.strip() and not line.lstrip().startswith("#") and not line.rstrip().endswith(":"):
            assert " # " in line, f"no comment: {line}"
            assert not re.search(r": *[\[{]", line), f"flow style: {line}"


def test_shipped_knobs_exist_and_are_values_or_left_to_presets() -> None:
    assert set(shipped()) <= set(Params.model_fields)
    params = leaves(resolve(shipped()).model_dump(mode="json"))
    for name, value in leaves(shipped()).items():
        assert name in params, f"no knob {name}"
        assert value == "preset" or params[name] == (None if value == "none" else value), f"{name} is not as it stands"


@pytest.mark.parametrize(
    ("value", "meaning"),
    [("none", None), ("None", None), (None, None), (0, 0), (0.3, 0.3), *zip(RULES, RULES, strict=True)],
)
def test_background_rule_words(value: object, meaning: object) -> None:
    assert resolve(shipped(bg_thresh=value)).bg_thresh == meaning


@pytest.mark.parametrize("value", [True, False, "nope", "", float("nan"), float("inf"), -0.1, 1.01, [0.2], "0.2"])
def test_background_rule_refusals_name_everything(value: object) -> None:
    with pytest.raises(UserError) as caught:
        resolve(shipped(bg_thresh=value))
    message = str(caught.value)
    assert "bg_thresh" in message and repr(value) in message and all(word in message for word in ("none", *RULES))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sed": 1}, "sed"),
        ({"data__nam": "scenes"}, "data.nam"),
        ({"seed": True}, "seed = True (bool)"),
        ({"seed": -1}, "seed = -1"),
        ({"method": "cma"}, "cam"),
        ({"method": None}, "method = None"),
        ({"profile": "fast"}, "compact, paper"),
        ({"classifier__optimisation__epochs": 0}, "classifier.optimisation.epochs = 0"),
        ({"classifier__optimisation__lr": "1e-3"}, "classifier.optimisation.lr = '1e-3' (str)"),
        ({"classifier__augmentation__long_side": [200, 100]}, "classifier.augmentation"),
        ({"masks__confidence_pair": [0.1, 0.3]}, "masks"),
        ({"data__name": "folder"}, "data.root"),
        ({"cams__scales": []}, "cams.scales"),
        ({"localizer__bao": 3}, "localizer.bao = 3 (int)"),
        ({"data": "x"}, "data = 'x' (str)"),
    ],
)
def test_wrong_knobs_are_named(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=re.escape(expected)):
        resolve(shipped(**change))


@pytest.mark.parametrize(
    ("name", "existing"),
    [
        ("sed", ["seed"]),
        ("data.nam", ["data.name"]),
        ("localizer.toco.crp", ["localizer.toco.crop", "localizer.toco.crops"]),
        ("localizer.rule", ["localizer.network", "refine.rule"]),
        ("localizer.dual_branch.rates.lrr", ["localizer.dual_branch.rates.lr"]),
        ("cams.adcm.gamma", ["cams.adcam"]),
        ("zzzz", ["`make knobs`"]),
    ],
)
def test_unknown_knobs_are_refused_with_the_nearest_names(name: str, existing: list[str]) -> None:
    with pytest.raises(UserError, match="no such knob") as caught:
        resolve(shipped(**{name.replace(".", "__"): 1}))
    (line,) = str(caught.value).splitlines()[1:]
    assert line.startswith(f"  - {name.removesuffix('.gamma')}")
    assert all(re.search(rf"(?<![\w.]){re.escape(one)}(?![\w.])", line) for one in existing), line


@pytest.mark.parametrize(
    "group", ["classifier", "localizer", "cams", "refine", "report", "localizer__toco", "cams__adcam"]
)
def test_group_left_empty_sets_nothing(group: str) -> None:
    assert resolve(shipped(**{group: None})) == resolve(shipped())


@pytest.mark.parametrize("data", [None, {}, {"name": "preset"}])
def test_presets_are_those_of_the_data_set_in_use(data: dict[str, Any] | None) -> None:
    found, expected = resolve(shipped(data=data)), resolve(shipped())
    assert found.data.name == expected.data.name == "scenes"
    assert (found.bg_thresh, found.classifier, found.cams) == (expected.bg_thresh, expected.classifier, expected.cams)


def test_all_wrong_knobs_at_once() -> None:
    with pytest.raises(UserError) as caught:
        resolve(shipped(seed="x", device="tpu", cams__batch=0))
    assert all(name in str(caught.value) for name in ("seed", "device", "cams.batch"))


def test_missing_knob_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_crop(*names: str) -> list[Layer]:
        found = deepcopy(layers(*names))
        for layer in found:
            layer.values.get("classifier", {}).get("augmentation", {}).pop("crop", None)
        return found

    monkeypatch.setattr(load, "layers", without_crop)
    with pytest.raises(UserError, match=r"classifier\.augmentation\.crop: .* set it"):
        resolve(shipped())
    assert resolve(shipped(classifier__augmentation__crop=64)).classifier.augmentation.crop == 64


@pytest.mark.parametrize("text", ["", "[1, 2", "- a\n- b\n"])
def test_unusable_file_is_one_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError):
        load_params(tmp_path / "params.yaml")


def test_missing_file_says_where_to_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run from the root"):
        load_params(tmp_path / "params.yaml")


def test_the_environment_gives_the_root_where_params_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    root = "/home/ö/a [1] & b=c's"
    monkeypatch.setenv("DATA_ROOT", root)
    assert resolve(shipped(data__name="folder")).data.root == root
    assert resolve(shipped(data__name="folder", data__root="/other")).data.root == "/other"
    assert resolve(shipped()).data.root is None, "scenes have no root, and are drawn once whatever the environment says"
