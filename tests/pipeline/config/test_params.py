"""params.yaml, presets, and what each stage is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ruamel.yaml import YAML

from models.propagation.rules import rule_names
from pipeline.config.params import PRESETS, STAGES, Params, load_params, methods, resolve, stage_configs
from pipeline.configure import check_weights
from pipeline.run.errors import UserError
from tests.support import ROOT

SHIPPED = ROOT / "params.yaml"


def shipped(**changes: Any) -> dict[str, Any]:
    """The shipped knobs with some changed; a double underscore enters a group."""
    knobs: dict[str, Any] = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    for key, value in changes.items():
        *groups, name = key.split("__")
        place = knobs
        for group in groups:
            place = place[group]
        place[name] = value
    return knobs


def leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names of all knobs."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def test_both_yaml_loaders_agree() -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    assert yaml.safe_load(text) == YAML(typ="safe").load(text)


def test_params_are_block_style_and_documented() -> None:
    for line in SHIPPED.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.lstrip().startswith("#") and not line.rstrip().endswith(":"):
            assert " # " in line, f"no comment: {line}"
            assert not re.search(r": *[\[{]", line), f"flow style: {line}"


@pytest.mark.parametrize("method", methods())
@pytest.mark.parametrize("profile", ["compact", "paper"])
@pytest.mark.parametrize("data", ["scenes", "voc2012", "folder"])
def test_every_preset_validates(method: str, profile: str, data: str) -> None:
    params = resolve(shipped(method=method, profile=profile, data__name=data, data__root="/photographs"))
    for stage, config in stage_configs(params).items():
        STAGES[stage].model_validate(config)


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_presets_set_only_knobs_that_params_leaves_to_them(path: Path) -> None:
    knobs = leaves(shipped())
    for key, layer in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        if key == "like":
            assert layer in methods()
            continue
        for name in leaves(layer):
            rule = name.split(".")[1] if name.startswith("cams.") else ""
            assert knobs.get(name) == "preset" or rule in rule_names(), f"{path.name} sets {name}"


@pytest.mark.parametrize(
    ("value", "meaning"), [("none", None), ("None", None), (None, None), (0, 0), (0.3, 0.3), ("otsu", "otsu")]
)
def test_background_rule_words(value: object, meaning: object) -> None:
    assert resolve(shipped(bg_thresh=value)).bg_thresh == meaning


@pytest.mark.parametrize("value", [True, False, "nope", "", float("nan"), float("inf"), -0.1, 1.01, [0.2], "0.2"])
def test_background_rule_refusals_name_everything(value: object) -> None:
    with pytest.raises(UserError) as caught:
        resolve(shipped(bg_thresh=value))
    message = str(caught.value)
    assert "bg_thresh" in message and repr(value) in message and "none" in message and "otsu" in message


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
        ({"method": "bao", "localizer__optimisation__epochs": 5}, "below localizer.optimisation.epochs = 5"),
        ({"method": "adcam", "cams__rules": ["diffuse"]}, "cams.rules: no rule 'diffuse'; allowed are adcam, aux"),
        ({"method": "adcam", "cams__adcam": {"steps": "closed"}}, "cams.adcam: steps = closed needs mode = ppr"),
        ({"cams__rules": ["expansion"]}, "cams.rules = expansion needs localizer.rule = esol"),
        ({"cams__rules": ["transcam"]}, "read attention, but classifier.network = efficientnet_lite0 has none"),
    ],
)
def test_wrong_knobs_are_named(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=re.escape(expected)):
        resolve(shipped(**change))


def test_all_wrong_knobs_at_once() -> None:
    with pytest.raises(UserError) as caught:
        resolve(shipped(seed="x", device="tpu", cams__batch=0))
    assert all(name in str(caught.value) for name in ("seed", "device", "cams.batch"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"method": "transcam", "profile": "paper"}, "classifier.weights = imagenet: no library carries those of conf"),
        ({"method": "affinitynet", "profile": "paper"}, "affinity.weights = imagenet: no library carries those of res"),
        ({"method": "amn", "localizer__weights": "lost.pth"}, "localizer.weights = lost.pth: no such file"),
        ({"segmenter__weights": "lost.pth"}, "segmenter.weights = lost.pth: no such file"),
    ],
)
def test_weights_that_cannot_be_had_stop_before_any_work(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=re.escape(expected)):
        check_weights(resolve(shipped(**change)))
    check_weights(resolve(shipped()))


def test_missing_knob_is_named() -> None:
    knobs = shipped()
    del knobs["cams"]["batch"]
    with pytest.raises(UserError, match=r"cams\.batch"):
        resolve(knobs)


@pytest.mark.parametrize("text", ["", "[1, 2", "- a\n- b\n"])
def test_unusable_file_is_one_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError):
        load_params(tmp_path / "params.yaml")


def test_like_inherits_a_method_and_shares_its_classifier() -> None:
    transcam, adcam = (stage_configs(resolve(shipped(method=m, profile="paper"))) for m in ("transcam", "adcam"))
    assert transcam["train_classifier"] == adcam["train_classifier"]
    assert transcam["train_classifier"]["network"] == "conformer_s"
    assert transcam["extract_cams"]["rules"] == ["transcam"] and adcam["extract_cams"]["rules"] == ["adcam"]


def changed_stages(method: str = "cam", **changes: Any) -> set[str]:
    before = stage_configs(resolve(shipped(method=method)))
    after = stage_configs(resolve(shipped(method=method, **changes)))
    return {stage for stage in before if before[stage] != after[stage]}


def test_only_what_uses_a_knob_is_told_of_it() -> None:
    scored = {f"evaluate_{artefact}" for artefact in ("rules", "seeds", "refined", "masks", "segmenter")}
    assert changed_stages(bg_thresh="none") == {"make_masks", *scored, "report"}
    assert changed_stages(device="cpu", processes=4, workers=1, precision="float32") == set()
    assert changed_stages(data__watch="labels.csv") == set()
    assert "train_classifier" not in changed_stages(segmenter__optimisation__epochs=3)
    assert changed_stages("bao", localizer__toco__crops=3, localizer__esol__reach=1.0) == {"report"}
    assert "train_localizer" not in changed_stages("bao", cams__scales=[1.0, 2.0])
    assert "train_localizer" in changed_stages("bao_static", cams__scales=[1.0, 2.0])
    assert changed_stages("toco", localizer__toco__crops=3) == {"train_localizer", "report"}


def test_every_knob_reaches_a_stage_or_the_runtime() -> None:
    told: set[str] = set()
    for method in ("cam", "toco", "esol"):
        configs = stage_configs(resolve(shipped(method=method)))
        told |= {name for stage, config in configs.items() if stage != "report" for name in leaves(config)}
        told |= {name for name in configs["report"] if name != "params"}
    flat = {name.removeprefix("source.").removeprefix("protocol.") for name in told}
    elsewhere = {"device", "precision", "processes", "workers", "data.watch"}  # runtime.json, dvc.yaml
    other_sources = {name for name in leaves(shipped()) if name.startswith(("data.voc2012.", "data.folder."))}
    for name in leaves(shipped()):
        short = {name, name.split(".", 1)[-1], name.split(".", 2)[-1]}
        assert short & flat or name in elsewhere | other_sources, f"{name} is told to no stage"


def test_params_model_has_the_knobs_of_the_file() -> None:
    assert set(Params.model_fields) == set(shipped())
