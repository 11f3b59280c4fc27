"""Presets: every method, profile and data set gives a whole configuration, and every knob that a preset sets exists."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from models.propagation.rules import load_rule, rule_names
from pipeline.config import presets
from pipeline.config.data import DataKnobs
from pipeline.config.explain import knob_rows
from pipeline.config.load import resolve
from pipeline.config.params import Params
from pipeline.config.presets import PRESETS, PROFILES, layers, methods
from pipeline.config.stages import stage_configs
from pipeline.run.errors import UserError
from tests.support.knobs import shipped
from tests.support.stages import config_class
from tools.status import leaves

FILES = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(PRESETS.glob("*.yaml"))}
DATA = get_args(DataKnobs.model_fields["name"].annotation)
RECIPES = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in PRESETS.glob("segmenters/*.yaml")}
LAYERS = {"common", *PROFILES, *(f"{profile}_{data}" for profile in PROFILES for data in DATA)}


def presets_and_variants() -> Iterator[tuple[str, dict[str, Any]]]:
    """All by their names."""
    for name, file in FILES.items():
        yield name, {key: value for key, value in file.items() if key != "variants"}
        yield from file.get("variants", {}).items()


@pytest.mark.parametrize("method", methods())
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("data", DATA)
def test_every_preset_validates(method: str, profile: str, data: str) -> None:
    where = {"data__root": "/photographs", "data__folder__masks": "masks"}
    params = resolve(shipped(method=method, profile=profile, data__name=data, **where))
    for stage, config in stage_configs(params).items():
        config_class(stage).model_validate(config)


@pytest.mark.parametrize("name", dict(presets_and_variants()))
def test_presets_set_only_knobs_that_exist_and_that_params_leaves_to_them(name: str) -> None:
    existing = {row.name for row in knob_rows(Params)}
    existing |= {f"cams.{rule}.{knob}" for rule in rule_names() for knob in load_rule(rule).knobs.model_fields}
    given = leaves(shipped())
    for key, layer in dict(presets_and_variants())[name].items():
        if key in ("like", "baseline"):
            assert layer in methods()
            continue
        if key == "segmenter":
            assert layer in RECIPES
            continue
        assert key in LAYERS, f"no profile and data set is called {key}"
        for knob in leaves(layer):
            assert knob in existing and given.get(knob, "preset") == "preset", f"{name} sets {knob}"


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_say_how_a_segmenter_learns_and_predicts(name: str) -> None:
    existing = {row.name for row in knob_rows(Params)}
    assert RECIPES[name].keys() == {"segmenter", "predict"} and set(leaves(RECIPES[name])) <= existing


@pytest.mark.parametrize(
    ("method", "network", "crf"),
    [
        ("cam", "deeplabv2_resnet101", "deeplab"),
        ("affinitynet", "deeplabv1_resnet38", "deeplabv1_resnet38"),
        ("esol_affinitynet", "deeplabv2_resnet101", "deeplab"),
        ("bao", "two_convolutions_resnet38", "mctformer"),
        ("toco", "localizer", "toco_seg"),
        ("dual_branch_second_stage", "deeplabv3_resnet101", "deeplab"),
    ],
)
def test_last_recipe_counts(method: str, network: str, crf: str) -> None:
    params = resolve(shipped(method=method, profile="paper"))
    assert (params.segmenter.network, params.predict.crf) == (network, crf)
    assert [layer.name for layer in layers(method, "paper", "scenes") if layer.name.startswith("segmenters/")][1:] == []
    compact = [layer.name for layer in layers(method, "compact", "scenes")]
    assert not [name for name in compact if name.startswith("segmenters/")]


@pytest.mark.parametrize("place", ["common", "compact", "compact_scenes"])
def test_unknown_knob_of_a_preset_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    for name in ("base", "cam"):
        (tmp_path / f"{name}.yaml").write_text((PRESETS / f"{name}.yaml").read_text())
    shutil.copytree(PRESETS / "segmenters", tmp_path / "segmenters")
    (tmp_path / "new.yaml").write_text(f"like: cam\n{place}:\n  refine: {{steps: 3}}\n")
    monkeypatch.setattr(presets, "PRESETS", tmp_path)
    forget()
    try:
        assert methods() == ["cam", "new"]
        with pytest.raises(UserError, match=r"refine.steps = 3 \(int\): no such knob; nearest are .*refine.log2_steps"):
            resolve(shipped(method="new"))
        assert resolve(shipped(method="cam", profile="paper")).method == "cam"
    finally:
        forget()


def forget() -> None:
    """Preset files are read once; let them be read again."""
    presets._files.cache_clear()
    presets._recipes.cache_clear()
    presets._owners.cache_clear()


def test_like_inherits_a_method_and_shares_its_classifier() -> None:
    transcam, adcam = (stage_configs(resolve(shipped(method=m, profile="paper"))) for m in ("transcam", "adcam"))
    assert transcam["train_classifier"] == adcam["train_classifier"]
    assert transcam["train_classifier"]["network"] == "conformer_s"
    assert transcam["extract_cams"]["rules"] == ["transcam"] and adcam["extract_cams"]["rules"] == ["adcam"]


def test_variants_are_methods_that_change_their_file() -> None:
    variants = {name: file for name, file in FILES.items() if "variants" in file}
    assert variants, "some papers have tables"
    for name, file in variants.items():
        for variant, changes in file["variants"].items():
            assert variant in methods() and variant not in FILES
            own = layers(variant, "compact", "scenes")
            assert [
                layer.name for layer in own if layer.name.startswith(f"{name}.yaml {variant} ")
            ] or "like" in changes
            assert resolve(shipped(method=variant)) != resolve(shipped(method=name))


def test_later_layers_win() -> None:
    names = [layer.name for layer in layers("bao_static", "compact", "scenes")]
    files = list(dict.fromkeys(name.rsplit(" ", 1)[0] for name in names))
    assert files == ["base.yaml", "transcam.yaml", "bao.yaml", "bao.yaml bao_static"]
    parts = [name.rsplit(" ", 1)[1] for name in names if name.startswith("bao.yaml bao_static")]
    assert parts == ["common", "compact", "compact_scenes"]
    static = resolve(shipped(method="bao_static", profile="compact"))
    assert static.localizer.bao.confidence_pair == [0.75, 0.55] and static.localizer.optimisation.epochs == 10
    assert resolve(shipped(method="bao_static", profile="paper")).localizer.bao.confidence_pair == [0.6, 0.25]


COCO: dict[str, dict[str, Any]] = {
    "toco": {
        "bg_thresh": 0.45,
        "localizer.toco.temperature": 1.0,
        "localizer.toco.high": [0.65, 0.65],
        "localizer.toco.low": 0.25,
        "localizer.toco.contrast_start": 0.15,
        "localizer.toco.mask_start": 0.1,
        "localizer.toco.final_labels_start": 0.15,
        "localizer.optimisation.batch": 8,
        "localizer.optimisation.lr": 0.00006,
        "predict.fusion": "toco_coco",
        "predict.long_side": 448,
        "predict.square": True,
    },
    "dual_branch": {
        "localizer.toco.temperature": 0.5,
        "localizer.toco.high": [0.65, 0.55],
        "localizer.toco.mask_start": 0.1,
        "localizer.optimisation.batch": 8,
    },
    "amn": {"bg_thresh": 0.22},
}
"""Published and released settings on COCO 2014 that differ from those on VOC 2012, or that must not."""


@pytest.mark.parametrize("method", COCO)
def test_settings_on_coco(method: str) -> None:
    def values(data: str) -> dict[str, Any]:
        knobs = {"method": method, "profile": "paper", "data__name": data, "data__root": "/photographs"}
        return leaves(resolve(shipped(**knobs)).model_dump())

    found = values("coco2014")
    assert {key: found[key] for key in COCO[method]} == COCO[method]
    same = values("voc2012")
    assert {key for key in same if same[key] != found[key] and not key.startswith("data.")} <= {
        *COCO["toco"],
        "localizer.optimisation.warm_up",
        "cams.caa.box_mask",
    }


def test_steps_of_toco_on_coco() -> None:
    knobs = {"method": "toco", "profile": "paper", "data__name": "coco2014", "data__root": "/photographs"}
    rates = resolve(shipped(**knobs)).localizer.optimisation
    steps = 82081 / rates.batch * rates.epochs
    assert abs(steps / 80000 - 1) < 0.03 and abs(rates.warm_up * 80000 - 1500) < 1


@pytest.mark.parametrize(("data", "share"), [("voc2012", 0.4), ("coco2014", 0.7)])
def test_boxes_of_clip_es(data: str, share: float) -> None:
    knobs = {"method": "transcam", "profile": "paper", "data__name": data, "data__root": "/photographs"}
    params = resolve(shipped(**knobs, cams__rules=["caa"]))
    assert stage_configs(params)["extract_cams"].get("caa", {}).get("box_mask", 0.4) == share
    assert params.cams.rule("caa")[1].model_dump()["box_mask"] == share
