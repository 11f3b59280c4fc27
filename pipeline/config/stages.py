"""What each stage is told: only what its result depends on, and the digest of the code that it runs."""

from __future__ import annotations

import os
from typing import Any

from models.registry import AFFINITIES, CLASSIFIERS, ENCODERS, METHODS, NETWORKS, classifier_description, modules_of
from models.registry import BACKBONES, SEGMENTERS
from pipeline.config.code import code_digest
from pipeline.config.params import Params
from pipeline.run.told import Runtime

ARTEFACTS = ("seeds", "refined", "masks", "segmenter")
EVALUATED = ("localizer", "rules", *ARTEFACTS)
"""What `evaluate` scores: also BAO's maps after each epoch (`localizer`) and the compared propagation rules (`rules`)."""

UPSTREAM = {
    "localizer": ("prepare_data", "train_classifier", "train_localizer"),
    "rules": ("prepare_data", "train_classifier", "train_localizer", "extract_cams"),
    "seeds": ("prepare_data", "train_classifier", "train_localizer", "extract_cams"),
    "refined": ("prepare_data", "train_classifier", "train_localizer", "extract_cams", "train_affinity", "refine_cams"),
}
UPSTREAM["masks"] = (*UPSTREAM["refined"], "make_masks")
UPSTREAM["segmenter"] = (*UPSTREAM["masks"], "train_segmenter")
"""The stages that an artefact is made by."""

Json = dict[str, Any]


def stage_configs(params: Params) -> dict[str, Json]:
    """What every stage is told, by the name of its file below `data/config`."""
    told = _knobs(params)
    code = {stage: code_digest(modules) for stage, modules in stage_modules(params).items()}
    for stage in told:
        told[stage]["code"] = code[stage]
    for artefact in EVALUATED:
        config = told[f"evaluate_{artefact}"]
        config["code"] = {stage: code[stage] for stage in UPSTREAM[artefact]} | {"evaluate": config["code"]}
    return told


def _knobs(params: Params) -> dict[str, Json]:
    """The knobs of each stage."""
    p = params.model_dump(mode="json")
    seed, background = {"seed": p["seed"]}, {"bg_thresh": p["bg_thresh"]}
    data = {key: p["data"][key] for key in ("name", "root", "classes", "limit", "max_megapixels")}
    protocols = _protocols(params)
    evaluated = {
        f"evaluate_{name}": {"bg_thresh": None if name == "localizer" else p["bg_thresh"], "protocol": protocols[name]}
        for name in EVALUATED
    }
    return {
        "prepare_data": data | {"source": p["data"][params.data.name]},
        "train_classifier": p["classifier"] | seed,
        "train_localizer": _localizer(params) | seed,
        "extract_cams": params.cams.told(),
        "train_affinity": p["affinity"] | seed,
        "refine_cams": p["refine"],
        "make_masks": p["masks"] | background,
        "train_segmenter": p["segmenter"] | seed,
        **evaluated,
        "report": p["report"] | {"params": shown(params)},
    }


def _localizer(params: Params) -> Json:
    """The knobs of the second training, and those of the maps where it makes some."""
    makes_maps = params.training is not None and params.training.maps
    return params.localizer.told() | {"cams": params.cams.told() if makes_maps else None}


# ---------------------------------------------------------------------------------------------------------------- code


def stage_modules(params: Params) -> dict[str, set[str]]:
    """The modules that each stage runs; what these import belongs to them (see `pipeline.config.code`)."""
    classifier = _classifier_modules(params)
    localizer = _localizer_modules(params) | classifier
    affinity = _affinity_modules(params)
    segmenter = {SEGMENTERS[params.segmenter.network].at.split(":")[0]} if params.segmenter.network in SEGMENTERS else localizer
    rules = {module for text in params.cams.rules for module in params.cams.modules(text)}
    task = {params.training.task} if params.training else set()
    maps = rules if params.training and params.training.maps else set()
    named = {
        "prepare_data": {f"pipeline.data.sources.{params.data.name}"},
        "train_classifier": classifier,
        "train_localizer": localizer | task | maps,
        "extract_cams": localizer | rules,
        "train_affinity": affinity,
        "refine_cams": affinity,
        "make_masks": set(),
        "train_segmenter": segmenter,
        **{f"evaluate_{artefact}": set() for artefact in EVALUATED},
        "report": set(),
    }
    return {stage: {f"pipeline.{stage.removesuffix('_' + stage.split('_')[-1]) if stage.startswith('evaluate_') else stage}", *modules} for stage, modules in named.items()}


def _classifier_modules(params: Params) -> set[str]:
    if params.classifier.network == "none":
        return set()
    return modules_of(classifier_description(params.classifier.network, 1, 0.0))


def _localizer_modules(params: Params) -> set[str]:
    """The network that train_localizer leaves, with its trunks."""
    groups = params.localizer.groups().values()
    trunks = {(BACKBONES | ENCODERS)[group.backbone].at.split(":")[0] for group in groups if hasattr(group, "backbone")}
    name = "toco" if params.one_stage else params.localizer.network
    return trunks | ({NETWORKS[name].split(":")[0]} if name in NETWORKS else set())


def _affinity_modules(params: Params) -> set[str]:
    if params.affinity.network not in AFFINITIES:
        return set()
    return modules_of({"network": params.affinity.network, "backbone": params.affinity.backbone})


# ------------------------------------------------------------------------------------------------- for tables and pages


def _as_text(knobs: Json) -> str:
    """Knobs in one line, as the protocol of a details file shows them."""
    return ", ".join(f"{key}={'none' if value is None else value}" for key, value in knobs.items())


def _protocols(params: Params) -> dict[str, Json]:
    """What the details of every artefact say of how it was made."""
    p = params.model_dump(mode="json")
    run = {key: p[key] for key in ("method", "profile", "seed")}
    chosen = "constants of the compact preset, on scenes of another drawing seed" if p["profile"] == "compact" else None
    weights, maps = first_weights(params), p["cams"]
    views = {f"cam_{key}": maps[key] for key in ("long_side", "scales", "square", "fusion")}
    cams = run | {"initial_weights": weights, "chosen_with_masks": chosen} | views
    rules = {text: _as_text(params.cams.rule(text)[1].model_dump()) for text in maps["rules"]}
    seeds = cams | {"rule": maps["rules"][0], "rule_knobs": rules[maps["rules"][0]]}
    refined = seeds | {"refine": p["refine"]["rule"]}
    alone = params.segmenter.network in SEGMENTERS
    segmenter = {
        "network": p["segmenter"]["network"],
        "initial_weights": p["segmenter"]["weights"] if alone else weights,
        "test_scales": p["segmenter"]["test_scales"],
        "crf": p["segmenter"]["test_crf"],
    }
    groups = params.localizer.told().get("groups", {})
    return {
        "localizer": run | {"crf": None, "localizer": groups},
        "rules": cams | {"crf": None, "rules": rules},
        "seeds": seeds | {"crf": None},
        "refined": refined | {"crf": None},
        "masks": refined | {"crf": p["masks"]["crf"]},
        "segmenter": run | segmenter,
    }


def first_weights(params: Params) -> str:
    """The initial weights of the network that gives the maps' features."""
    groups = list(params.localizer.groups().values())
    return str(groups[0].weights if params.one_stage else params.classifier.weights)  # type: ignore[attr-defined]


def shown(params: Params) -> Json:
    """All knobs but those of the machine: neither how the run was done nor where files lie belongs on a page in git."""
    p = params.model_dump(mode="json")
    kept = {key: value for key, value in p.items() if key not in Runtime.model_fields}
    kept["data"] = {key: value for key, value in p["data"].items() if key not in ("root", "watch")}
    kept["localizer"] = params.localizer.told()
    kept["cams"] = params.cams.told()
    return kept


def runtime(params: Params) -> Runtime:
    """Where the photographs lie and what the machine lends, with `auto` settled."""
    root = params.data.root if params.data.name != "scenes" else "data/prepared/scenes"
    workers = len(os.sched_getaffinity(0)) if params.workers == "auto" else params.workers
    return Runtime(
        root=root,
        device=params.device,
        precision=params.precision,
        processes=params.processes,
        workers=workers,
    )
