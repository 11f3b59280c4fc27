"""What each stage is told: all that its result depends on, and no more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.explain import knob_rows
from pipeline.config.load import resolve
from pipeline.config.params import Params
from pipeline.config.stages import OUTSIDE, SCORED, runtime, shown, stage_configs
from pipeline.run.told import Runtime
from pipeline.scoring.artefacts import EVALUATED
from tests.support import ROOT
from tests.support.knobs import shipped
from tools.status import leaves

DATA_SETS = ("scenes", "voc2012", "coco2014", "folder")

STAGES = {
    "data": "prepare_data",
    "classifier": "train_classifier",
    "localizer": "train_localizer",
    "cams": "extract_cams",
    "affinity": "train_affinity",
    "refine": "refine_cams",
    "masks": "make_masks",
    "segmenter": "train_segmenter",
    "predict": "predict",
    "report": "report",
}
"""The stage that reads a group of knobs."""

ELSEWHERE = {
    "data.background": "report",  # other stages are told only where there is none
    "crf_reference": "make_masks",
    "method": "report",
    "profile": "report",
    "bg_thresh": "choose_background",
    "seed": "train_classifier",
    "cams.rule_knobs": "cams.<rule>",
    "precision.training": "train_segmenter",
    "precision.inference": "predict",
} | dict.fromkeys(Runtime.model_fields, "runtime")


TRAININGS = {f"train_{name}" for name in ("classifier", "localizer", "affinity", "segmenter")}


def changed_stages(method: str = "cam", **changes: Any) -> set[str]:
    before = stage_configs(resolve(shipped(method=method)))
    after = stage_configs(resolve(shipped(method=method, **changes)))
    return {stage for stage in before if before[stage] != after[stage]}


def test_only_what_uses_a_knob_is_told_of_it() -> None:
    scored = {f"evaluate_{artefact}" for artefact in ("rules", "seeds", "refined", "masks")}
    assert changed_stages(bg_thresh="none") == {"choose_background", "make_masks", *scored, "report"}
    assert changed_stages(device="cpu", workers=1) == set()
    scores = {f"evaluate_{name}" for name in EVALUATED}
    assert changed_stages(processes=4) == {*TRAININGS, *scores}
    everything = {*scores, "report"}
    assert changed_stages(precision__training="bfloat16") == {*TRAININGS, *everything}
    viewers = {"train_classifier", "train_localizer", "extract_cams", "refine_cams", "predict"}
    assert changed_stages(precision__inference="tf32") == viewers | everything
    evaluated = {f"evaluate_{name}" for name in ("rules", "seeds", "refined")}
    assert changed_stages(data__tune=0.1) == {"prepare_data", "report"}
    assert changed_stages(data__tune=0.0) == {"prepare_data", "report", *evaluated}, "no number is called tuned"
    for method in ("cam", "irn", "bao_static"):
        assert changed_stages(method, cams__validation=True) == {"extract_cams", "report"}
    assert "train_classifier" not in changed_stages(segmenter__optimisation__epochs=3)
    assert "train_localizer" not in changed_stages("bao", cams__scales=[1.0, 2.0])
    assert "train_localizer" in changed_stages("bao_static", cams__scales=[1.0, 2.0])


@pytest.mark.parametrize(
    ("method", "knob", "stage"),
    [
        ("cam", "classifier__weights", "train_classifier"),
        ("cam", "segmenter__weights", "train_segmenter"),
        ("irn", "affinity__weights", "train_affinity"),
        ("toco", "localizer__toco__weights", "train_localizer"),
    ],
)
def test_weights_count_by_their_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, knob: str, stage: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"

    def told_of(content: str) -> dict[str, Any]:
        path.write_text(content)
        return stage_configs(resolve(shipped(method=method, **{knob: str(path)})))

    before, after = told_of("one"), told_of("other")
    assert {name for name in before if before[name] != after[name]} == {stage}


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("bao", {"localizer__toco__crops": 3, "localizer__esol__reach": 1.0}),
        (
            "cam",
            {"localizer__amn__label_smoothing": 0.1, "localizer__dual_branch__stages": [3]},
        ),
        ("transcam", {"cams__adcam__gamma": 0.0, "cams__caa__steps": 3}),
        ("dual_branch", {"localizer__esol__clip": "none"}),
    ],
)
def test_knobs_of_groups_that_a_method_does_not_read_change_nothing(method: str, changes: dict[str, Any]) -> None:
    assert changed_stages(method, **changes) == set()


def test_knobs_of_a_method_reach_its_training_its_scores_and_the_page() -> None:
    told = {"train_localizer", "report", "evaluate_localizer"}
    assert changed_stages("toco", localizer__toco__crops=3) == told
    assert changed_stages("dual_branch", localizer__dual_branch__combine="parallel") == told
    maps = {"extract_cams", "report", *(f"evaluate_{name}" for name in ("rules", "seeds", "refined", "masks"))}
    assert changed_stages("adcam", cams__adcam__gamma=0.0) == maps


def told_as(name: str) -> tuple[str, str]:
    """The stage that is told of a knob, and the dotted name that it has there."""
    group, _, rest = name.partition(".")
    inner = rest.partition(".")[0]
    if name in OUTSIDE:
        return STAGES[group], f"{OUTSIDE[name]}.folder"
    if group == "data" and inner in DATA_SETS:
        return STAGES[group], f"source{rest.removeprefix(inner)}"
    if group == "localizer" and inner in ("amn", "bao", "toco", "dual_branch", "esol"):
        return STAGES[group], f"groups.{rest}"
    return STAGES[group], rest


def test_every_knob_reaches_a_stage_or_the_runtime(tmp_path: Path) -> None:
    told: dict[str, set[str]] = {}
    methods = ("cam", "amn", "bao", "toco", "dual_branch", "esol", "adcam", "irn", "irn")
    for number, (method, group) in enumerate(zip(methods, ["report"] * 7 + ["cams", "masks"], strict=True)):
        data = {"data__name": DATA_SETS[number % 4], "data__root": "/photographs", "data__saliency": str(tmp_path)}
        foreign = {"source": "import", "folder": str(tmp_path)} if group != "report" else {}
        given = {f"{group}__{key}": value for key, value in foreign.items()}
        params = resolve(shipped(method=method, masks__segments=str(tmp_path), **data, **given))
        configs = stage_configs(params)
        assert set(leaves(configs["report"]["params"])) == set(leaves(shown(params)))
        for stage, config in configs.items():
            told.setdefault(stage, set()).update(leaves(config))
    told["runtime"] = set(runtime(params).model_dump())
    for row in knob_rows(Params):
        stage, name = (ELSEWHERE[row.name], row.name) if row.name in ELSEWHERE else told_as(row.name)
        if stage in told:
            kind = f"{name.rpartition('.')[2]}_precision"
            assert {name, kind, f"params.{name}"} & told[stage], f"{row.name} is told to no stage"
        else:
            assert stage in ("dvc.yaml", "cams.<rule>")


def test_every_knob_of_the_shipped_file_is_a_knob() -> None:
    assert set(leaves(shipped())) <= {row.name for row in knob_rows(Params)}


def test_scores_say_how_the_artefact_was_made() -> None:
    configs = stage_configs(resolve(shipped(method="adcam", cams__rules=["adcam:gamma=0", "none"])))
    protocol = configs["evaluate_masks"]["protocol"]
    assert (
        protocol["method"] == "adcam" and protocol["rule"] == "adcam:gamma=0" and "gamma=0.0" in protocol["rule_knobs"]
    )
    assert protocol["cam_scales"] == configs["extract_cams"]["scales"] and protocol["crf"] == "irn"
    assert set(configs["evaluate_rules"]["protocol"]["rules"]) == {"adcam:gamma=0", "none"}
    toco = stage_configs(resolve(shipped(method="toco")))
    assert toco["evaluate_localizer"]["protocol"]["localizer"].keys() == {"toco"}
    masks = {"evaluate_refined": {"masks"}}
    assert all(set(toco[stage]) == {"bg_thresh", "protocol", "code"} | masks.get(stage, set()) for stage in SCORED)


def test_every_details_file_states_initial_weights_and_number_formats() -> None:
    changes = {"segmenter__weights": "/weights/deeplabv1_resnet101-coco.pth", "precision__training": "bfloat16"}
    told = stage_configs(resolve(shipped(method="irn", profile="paper", **changes)))
    protocols = {name: told[f"evaluate_{name}"]["protocol"] for name in EVALUATED}
    protocols["classifier"] = told["train_classifier"]["protocol"]
    stated = {name: protocol["initial_weights"] for name, protocol in protocols.items()}
    assert stated.pop("segmenter") == "deeplabv1_resnet101-coco.pth", "no folder of the machine"
    assert set(stated.values()) == {"imagenet"}
    for protocol in protocols.values():
        assert (protocol["training_precision"], protocol["inference_precision"]) == ("bfloat16", "tf32")
    segmenter = protocols["segmenter"]
    assert (segmenter["fusion"], segmenter["flip"], segmenter["loss"]) == ("mean", False, "cross_entropy")


def test_refined_maps_are_told_how_masks_are_made_of_them_by_a_threshold() -> None:
    told = stage_configs(resolve(shipped()))
    masks = {key: value for key, value in told["make_masks"].items() if key not in ("bg_thresh", "code")}
    assert told["evaluate_refined"]["masks"] == masks
    for changes in ({"masks__crf": "none"}, {"masks__source": "truth"}, {"masks__confidence_pair": [0.5, 0.1]}):
        assert "masks" not in stage_configs(resolve(shipped(**changes)))["evaluate_refined"]


def test_only_stages_with_a_crf_are_told_what_its_kernels_are_made_for() -> None:
    def told(**changes: Any) -> set[str]:
        configs = stage_configs(resolve(shipped(**changes)))
        return {stage for stage, config in configs.items() if "crf_reference" in config}

    assert told() == {"make_masks"}
    assert told(masks__crf="none") == set()
    assert told(predict__crf="deeplab") == {"make_masks", "predict"}
    assert told(method="irn") == {"make_masks", "train_affinity"}
    assert told(method="amn", masks__crf="none") == {"train_localizer", "train_affinity"}
    assert "train_localizer" not in told(method="bao") and "train_localizer" in told(method="bao_static")
    assert told(method="supervised") == set()
    of_irn = {"train_affinity", "make_masks", "evaluate_refined", "evaluate_masks", "report"}
    assert changed_stages("irn", crf_reference=400) == of_irn
    assert changed_stages("cam", crf_reference=400) == of_irn - {"train_affinity"}


def test_masks_are_told_of_what_makes_them_alone() -> None:
    for change in ({"bg_thresh": 0.4}, {"masks__crf": "psa"}, {"crf_reference": 400}):
        assert "make_masks" not in changed_stages("supervised", **change), change
    pair = {"masks__confidence_pair": [0.5, 0.3]}
    one, other = (stage_configs(resolve(shipped(bg_thresh=t, **pair))) for t in (0.3, 0.6))
    assert one["make_masks"] == other["make_masks"]
    assert one["evaluate_masks"]["protocol"]["confidence_pair"] == [0.5, 0.3]
    assert one["evaluate_masks"]["protocol"]["crf_reference"] == 500


def test_other_scales_of_the_predictions_train_nothing() -> None:
    told = {"predict", "evaluate_segmenter", "report"}
    assert changed_stages(predict__scales=[1.0, 1.5]) == changed_stages(predict__crf="deeplab") == told
    assert changed_stages(predict__long_side=320) == changed_stages(predict__square=True) == told


def test_true_masks_are_said_to_come_of_no_threshold_and_no_crf() -> None:
    told = stage_configs(resolve(shipped(method="supervised")))
    assert told["evaluate_masks"]["bg_thresh"] is None and told["evaluate_masks"]["protocol"]["crf"] is None
    assert not [key for key in told["evaluate_masks"]["protocol"] if key.startswith("cam_")]
    assert told["evaluate_refined"]["bg_thresh"] == resolve(shipped(method="cam")).bg_thresh
    assert "full supervision" in told["evaluate_segmenter"]["protocol"]["pixel_labels"]


def test_imported_maps_train_nothing_and_claim_nothing_of_a_method(tmp_path: Path) -> None:
    (tmp_path / "irn_cams").mkdir()
    given: dict[str, Any] = {"cams__source": "import", "cams__folder": str(tmp_path / "irn_cams")}
    params = resolve(shipped(method="transcam", **given))
    told = stage_configs(params)
    assert told["train_classifier"]["network"] == told["train_localizer"]["network"] == "none"
    assert told["extract_cams"].keys() == {
        "source",
        "first_id",
        "validation",
        "imported",
        "inference_precision",
        "code",
    }
    digest = told["extract_cams"]["imported"]["sha256"]
    for name in ("seeds", "refined", "masks", "segmenter"):
        protocol = told[f"evaluate_{name}"]["protocol"]
        assert protocol["method"] == "imported" and protocol["imported"] == f"cams of irn_cams, {digest[:12]}"
        assert "imported maps: not known" in protocol["pixel_labels"]
        assert str(tmp_path) not in str(protocol)
        if name != "segmenter":
            assert not [key for key in protocol if key.startswith(("cam_", "rule")) or key == "initial_weights"]
    assert told["evaluate_masks"]["protocol"]["crf"] == "irn" and told["evaluate_masks"]["bg_thresh"] == "colours"
    page = shown(params)
    assert page["method"] == "imported" and page["cams"]["folder"] == "irn_cams" and str(tmp_path) not in str(page)
    for method in ("irn", "affinitynet"):
        walked = resolve(shipped(method=method, **given))
        assert walked.affinity.network != "none" and walked.classifier.network == "none", "walks apply to them"
    other = stage_configs(resolve(shipped(method="cam", **given)))
    assert other["extract_cams"] == told["extract_cams"], "no method has a part in them"


def test_imported_masks_need_neither_maps_nor_affinity(tmp_path: Path) -> None:
    params = resolve(shipped(method="irn", masks__source="import", masks__folder=str(tmp_path)))
    told = stage_configs(params)
    nothing = ("train_classifier", "train_localizer", "train_affinity")
    assert {told[stage]["network"] for stage in nothing} == {"none"}
    assert told["extract_cams"]["source"] == "none" and told["refine_cams"]["rule"] == "none"
    assert told["make_masks"].keys() == {"source", "imported", "segment_share", "code"}
    assert {told[f"evaluate_{name}"]["bg_thresh"] for name in EVALUATED} == {None}
    assert shown(params)["bg_thresh"] == "not used" and "crf" not in shown(params)["masks"]


def test_what_is_set_by_hand_wins_over_what_imports_leave_out(tmp_path: Path) -> None:
    given: dict[str, Any] = {"cams__source": "import", "cams__folder": str(tmp_path)}
    assert resolve(shipped(classifier__network="resnet50", **given)).classifier.network == "resnet50"
    both = given | {"masks__source": "import", "masks__folder": str(tmp_path)}
    assert resolve(shipped(**both)).cams.source == "import"


def test_segments_are_stated_where_they_vote(tmp_path: Path) -> None:
    told = stage_configs(resolve(shipped(masks__segments=str(tmp_path), masks__segment_share=0.7)))
    facts = {name: told[f"evaluate_{name}"]["protocol"].get("segments") for name in ("seeds", "masks", "segmenter")}
    digest = told["make_masks"]["segment_files"]["sha256"][:12]
    assert facts == {"seeds": None} | dict.fromkeys(("masks", "segmenter"), f"{tmp_path.name}, {digest}, share 0.7")
    assert told["evaluate_refined"]["masks"]["segment_files"] == told["make_masks"]["segment_files"]


def test_page_says_nothing_of_places_and_machines() -> None:
    params = resolve(shipped(data__name="folder", data__root="/home/somebody", device="cpu"))
    on_the_page = leaves(shown(params))
    assert not {"device", "precision", "processes", "workers", "data.root"} & set(on_the_page)
    assert "/home/somebody" not in str(on_the_page)


def test_plain_methods_are_configured_without_pytorch() -> None:
    program = """
import sys
from pipeline.config.load import load_params
from pipeline.config.stages import runtime, stage_configs
params = load_params()
stage_configs(params), runtime(params)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_stages_are_told_that_there_is_no_background_and_only_then() -> None:
    usual, without = (stage_configs(resolve(shipped(data__background=given))) for given in (True, False))
    assert {name for name in usual if usual[name] != without[name]} == {
        "prepare_data",
        "choose_background",
        "make_masks",
        "predict",
        "report",
        *(f"evaluate_{name}" for name in ("rules", "seeds", "refined", "masks")),
    }
    assert not any("background" in usual[name] for name in ("prepare_data", "predict"))
    assert without["make_masks"]["bg_thresh"] == without["evaluate_masks"]["bg_thresh"] == "nowhere"
    assert "masks" not in without["evaluate_refined"], "no curve over thresholds"
