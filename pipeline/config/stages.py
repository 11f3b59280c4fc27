"""What each stage is told: only what its result depends on, and the digest of the code that it runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.registry import AFFINITIES, BACKBONES, CLASSIFIERS, ENCODERS, NETWORKS, Network, segmenter_network
from pipeline.config.code import code_digest
from pipeline.config.params import Params
from pipeline.config.pixel_labels import imported, pixel_labels
from pipeline.data.outside import ARRAYS, PNG, OutsideFiles, listing_hash, outside_files, stated
from pipeline.maps.background_rules import NOWHERE
from pipeline.run.files import expanded, sha256
from pipeline.run.told import Runtime
from pipeline.scoring.artefacts import EVALUATED

WITH_SALIENCY = "I+S"
"""Image tags and saliency maps, in the field's words; image tags alone are I."""
TO_LOCALIZER = ("prepare_data", "train_classifier", "train_localizer")
TO_SEEDS = (*TO_LOCALIZER, "extract_cams")
TO_REFINED = (*TO_SEEDS, "train_affinity", "refine_cams")
UPSTREAM = {
    "localizer": TO_LOCALIZER,
    "rules": (*TO_SEEDS, "choose_background"),
    "seeds": (*TO_SEEDS, "choose_background"),
    "refined": (*TO_REFINED, "choose_background"),
    "masks": (*TO_REFINED, "choose_background", "make_masks"),
    "segmenter": (*TO_REFINED, "choose_background", "make_masks", "train_segmenter", "predict"),
}
"""The stages that an artefact is made by."""


SCORED = tuple(f"evaluate_{name}" for name in EVALUATED)
Json = dict[str, Any]


def stage_configs(params: Params) -> dict[str, Json]:
    """What every stage is told, by the name of its file below `data/config`."""
    told = _knobs(params)
    code = {module: record["digest"] for module, record in code_records(params).items()}
    for stage in told.keys() - set(SCORED):
        told[stage]["code"] = code[f"pipeline.{stage}"]
    for name in EVALUATED:
        stages = (*UPSTREAM[name], "evaluate")
        told[f"evaluate_{name}"]["code"] = {stage: code[f"pipeline.{stage}"] for stage in stages}
    return told


def code_records(params: Params) -> dict[str, Json]:
    """The digest of the code of each stage's module, and what the configuration chose of it (see `run.source`)."""
    records = {}
    for stage, entries in stage_entries(params).items():
        module, chosen = f"pipeline.{stage}", [repr(entry) for entry in entries]
        records[module] = {"chosen": chosen, "digest": code_digest(module, chosen)}
    return records


def _knobs(params: Params) -> dict[str, Json]:
    """The knobs of each stage."""
    p = params.model_dump(mode="json")
    training = {"seed": p["seed"], "processes": p["processes"], "training_precision": params.precision.training}
    inference = {"inference_precision": params.precision.inference}
    data = {key: p["data"][key] for key in ("name", "root", "classes", "limit", "max_megapixels")}
    outside = {knob: outside_files(folder) for knob, (folder, _) in outside_folders(params).items()}
    saliency = _told_of(outside, "data.saliency")
    without_background = {} if params.data.background else {"background": False}
    data |= {key: p["data"][key] for key in ("tune", "validate_on")} | saliency | without_background
    data |= {"saliency_splits": ["train", "val"]} if saliency and params.cams.validation else {}
    data |= {"files": listing_hash(photograph_folders(params))} if params.data.name != "scenes" else {}
    protocols = _protocols(params, outside)
    with_threshold = {"rules", "seeds", "refined"} if params.cams.source != "none" else set()
    with_threshold |= {"masks"} if _masks_have_a_threshold(params) else set()
    evaluated = {
        f"evaluate_{name}": {
            "bg_thresh": told_threshold(params) if name in with_threshold else None,
            "protocol": protocols[name],
        }
        for name in EVALUATED
    }
    if params.masks.by_threshold and params.data.background:
        evaluated["evaluate_refined"]["masks"] = _mask_rules(params, outside)
    return {
        "prepare_data": data | {"source": p["data"][params.data.name]},
        "train_classifier": p["classifier"]
        | training
        | inference
        | {"protocol": protocols["classifier"]}
        | _hashes(params, "classifier"),
        "train_localizer": _localizer(params)
        | _crf(params, *_static_kernels(params))
        | training
        | inference
        | _hashes(params, "localizer")
        | (saliency if params.training and params.training.saliency else {}),
        "extract_cams": _cams(params, outside) | inference,
        "train_affinity": p["affinity"]
        | _crf(params, _affinity_kernels(params))
        | training
        | _hashes(params, "affinity"),
        "refine_cams": p["refine"] | inference,
        "choose_background": {"bg_thresh": told_threshold(params)},
        "make_masks": _masks(params, outside),
        "train_segmenter": p["segmenter"] | training | _hashes(params, "segmenter"),
        "predict": p["predict"] | _crf(params, params.predict.crf) | inference | without_background,
        **evaluated,
        "report": p["report"] | {"params": shown(params)},
    }


def _hashes(params: Params, stage: str) -> Json:
    """Hashes of the files of initial weights that a training reads, by path; nothing for weights of libraries."""
    wanted = {weights for group, (_, _, weights) in initial_weights(params).items() if group.split(".")[0] == stage}
    files = {weights: expanded(weights) for weights in sorted(wanted) if is_file(weights)}
    found = {weights: sha256(path) for weights, path in files.items() if path.is_file()}
    return {"weights_sha256": found} if found else {}


def photograph_folders(params: Params) -> list[Path]:
    """The folders that hold photographs, tags and masks."""
    folders = [params.data.root, params.data.voc2012.sbd_root if params.data.name == "voc2012" else None]
    return [expanded(folder) for folder in folders if folder is not None]


def outside_folders(params: Params) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The folders of other tools' files that this run reads, by knob, and the endings of these files."""
    cams, masks = params.cams, params.masks
    salient = masks.source == "maps" or (params.training is not None and params.training.saliency)
    folders = {
        "data.saliency": (params.data.saliency if salient else None, PNG),
        "cams.folder": (cams.folder if cams.source == "import" else None, ARRAYS),
        "masks.folder": (masks.folder if masks.source == "import" else None, PNG),
        "masks.segments": (masks.segments if masks.source != "truth" else None, PNG),
    }
    return {knob: (folder, endings) for knob, (folder, endings) in folders.items() if folder is not None}


OUTSIDE = {
    "data.saliency": "saliency",
    "cams.folder": "imported",
    "masks.folder": "imported",
    "masks.segments": "segment_files",
}
"""What a stage calls such a folder, by the knob that names it."""


def _told_of(outside: Mapping[str, OutsideFiles], *knobs: str) -> Json:
    """What stages are told of the folders that some knobs name; nothing of those that are not read."""
    return {OUTSIDE[knob]: outside[knob].model_dump() for knob in knobs if knob in outside}


def _cams(params: Params, outside: Mapping[str, OutsideFiles]) -> Json:
    """The knobs of maps; those of other programs are told by their folder."""
    told = {key: value for key, value in params.cams.told().items() if key != "folder"}
    return told | _told_of(outside, "cams.folder")


def _localizer(params: Params) -> Json:
    """The knobs of the second training, and those of the maps where it makes some, no more than it reads."""
    cams = params.cams if _map_scales(params) == {"all"} else params.cams.at_one_scale()
    return params.localizer.told() | {"cams": cams.of_training().told() if _map_scales(params) else None}


OF_IMPORTED_MASKS = {"source", "folder", "segments", "segment_share"}
"""The knobs of masks that those of other programs read."""


def _masks(params: Params, outside: Mapping[str, OutsideFiles]) -> Json:
    """The knobs of masks: given ones need none, and a confidence pair takes the place of the background threshold."""
    if params.masks.source == "truth":
        return {"source": "truth"}
    if params.masks.source == "import":
        own = params.masks.model_dump(mode="json", include=OF_IMPORTED_MASKS - {"folder", "segments"})
        return own | _told_of(outside, "masks.folder", "masks.segments")
    has_one = _masks_have_a_threshold(params) or not params.data.background
    return _mask_rules(params, outside) | ({"bg_thresh": told_threshold(params)} if has_one else {})


def _mask_rules(params: Params, outside: Mapping[str, OutsideFiles]) -> Json:
    """All that masks of maps are made by but the background threshold."""
    own = params.masks.model_dump(mode="json", exclude={"folder", "segments"})
    return own | _crf(params, params.masks.crf) | _told_of(outside, "data.saliency", "masks.segments")


def told_threshold(params: Params) -> float | str | None:
    """The background threshold as stages are told it: none can hold where every pixel belongs to a class."""
    return params.bg_thresh if params.data.background else NOWHERE


def _masks_have_a_threshold(params: Params) -> bool:
    return params.masks.source == "maps" and params.masks.confidence_pair is None


def _crf(params: Params, *kernels: str | None) -> Json:
    """What the size of the CRF's kernels depends on, for a stage that runs one."""
    return {"crf_reference": params.crf_reference} if any(kernels) else {}


def _affinity_kernels(params: Params) -> str | None:
    """The CRF behind the confident labels of an affinity; None where none is learned."""
    return params.affinity.crf if params.affinity.network in AFFINITIES else None


def _static_kernels(params: Params) -> list[str | None]:
    """The CRFs behind the static labels of a second training."""
    groups = params.localizer.groups().values()
    return [getattr(group, "crf", None) for group in groups if group.map_scales == "all"]


def _map_scales(params: Params) -> set[str]:
    """At which scales the second training makes maps; empty where it makes none."""
    return {str(group.map_scales) for group in params.localizer.groups().values()} - {"none"}


# ---------------------------------------------------------------------------------------------------------------- code


def stage_entries(params: Params) -> dict[str, list[Any]]:
    """What each stage runs beyond its imports: entries of the tables in `models.registry`, and names of modules."""
    nothing: dict[str, list[Any]] = {"choose_background": [], "evaluate": [], "report": []}
    classifier = _classifier_entries(params)
    localizer = [*classifier, *_localizer_entries(params)]
    rules, training = params.cams.modules(), params.training
    affinity = _built(params.affinity.network, params.affinity.backbone)
    own_segmenter = segmenter_network(params.segmenter.network)
    return nothing | {
        "prepare_data": [f"pipeline.data.sources.{params.data.name}"],
        "train_classifier": classifier,
        "train_localizer": [*localizer, *([training] if training else []), *(rules if _map_scales(params) else [])],
        "extract_cams": [*localizer, *rules],
        "train_affinity": affinity,
        "refine_cams": affinity,
        "make_masks": ["pipeline.maps.true_masks"] if params.masks.source == "truth" else [],
        "train_segmenter": [own_segmenter] if own_segmenter else localizer,
        "predict": [own_segmenter] if own_segmenter else localizer,
    }


def _built(network: str, *trunks: str) -> list[Any]:
    """The entries of a network by its name in `network.json`, and of its trunks; none for `none`."""
    if network not in NETWORKS:
        return []
    return [Network(NETWORKS[network]), *((BACKBONES | ENCODERS)[name] for name in trunks)]


def _classifier_entries(params: Params) -> list[Any]:
    """The classifier, its network and, where it has one by name, its trunk."""
    chosen = CLASSIFIERS.get(params.classifier.network)
    if chosen is None:
        return []
    trunks = [value for key, value in chosen.arguments.items() if key == "backbone"]
    return [chosen, *_built(chosen.network, *trunks)]


def _localizer_entries(params: Params) -> list[Any]:
    """The network that train_localizer leaves, with its trunks."""
    if params.training is None:
        return []
    trunks = [group.backbone for group in params.localizer.groups().values() if hasattr(group, "backbone")]
    return _built(params.training.network, *trunks)


def is_file(weights: str) -> bool:
    """Whether a knob of initial weights names a file."""
    return weights.lower() not in ("imagenet", "coco", "none")


def initial_weights(params: Params) -> dict[str, tuple[str, str | None, str]]:
    """For each group that starts from weights: the network or trunk, where its ImageNet weights come from, the knob."""
    trunks = BACKBONES | ENCODERS
    wanted: dict[str, tuple[str, str | None, str]] = {}
    if (chosen := CLASSIFIERS.get(params.classifier.network)) is not None:
        wanted["classifier"] = (params.classifier.network, chosen.imagenet, params.classifier.weights)
    if (segmenter := segmenter_network(params.segmenter.network)) is not None:
        wanted["segmenter"] = (params.segmenter.network, segmenter.imagenet, params.segmenter.weights)
    groups: dict[str, Any] = {f"localizer.{name}": group for name, group in params.localizer.groups().items()}
    if params.affinity.network in AFFINITIES:
        groups["affinity"] = params.affinity
    for name, group in groups.items():
        if hasattr(group, "backbone"):
            wanted[name] = (group.backbone, trunks[group.backbone].imagenet, group.weights)
    return wanted


# ------------------------------------------------------------------------------------------------- for tables and pages


def _as_text(knobs: Json) -> str:
    """Knobs in one line, as the protocol of a details file shows them."""
    return ", ".join(f"{key}={'none' if value is None else value}" for key, value in knobs.items())


def _protocols(params: Params, outside: Mapping[str, OutsideFiles]) -> dict[str, Json]:
    """What the details of every artefact say of how it was made."""
    p = params.model_dump(mode="json")
    base = {key: p[key] for key in ("profile", "seed", "processes")} | {"drawing": drawing(params)}
    base |= {"method": stated_method(params)} | _stated_saliency(outside)
    run = base | {f"{kind}_precision": p["precision"][kind] for kind in ("training", "inference")}
    weights = {"initial_weights": stated_weights(first_weights(params))}
    if params.cams.source == "network":
        run |= weights
    cams = {
        "network": run | {f"cam_{key}": p["cams"][key] for key in ("long_side", "scales", "square", "fusion")},
        "import": base | _stated_origin(outside, "cams.folder"),
        "none": base | NO_MAPS,
    }[params.cams.source]
    rules = params.cams.rules if params.cams.source == "network" else []
    knobs = {text: _as_text(params.cams.rule(text)[1].model_dump()) for text in rules}
    seeds = cams | ({"rule": rules[0], "rule_knobs": knobs[rules[0]]} if rules else {})
    segments = _stated_segments(params, outside)
    masks = {
        "maps": seeds | {"refine": p["refine"]["rule"]} | _stated_masks(params) | segments,
        "import": base | _stated_origin(outside, "masks.folder") | GIVEN | segments,
        "truth": run | {"crf": None},
    }[params.masks.source]
    segmenter = _stated_origin(outside, "cams.folder", "masks.folder") | _stated_segmenter(params)
    protocols = {
        "localizer": run | {"crf": None, "localizer": params.localizer.told().get("groups", {})},
        "rules": cams | {"crf": None, "rules": knobs},
        "seeds": seeds | {"crf": None},
        "refined": seeds | {"crf": None, "refine": p["refine"]["rule"]},
        "masks": masks,
        "segmenter": run | segmenter | segments,
        "classifier": {key: (run | weights)[key] for key in ("training_precision", "inference_precision", *weights)},
    }
    return {name: facts | _stated_labels(params, name) for name, facts in protocols.items()}


GIVEN = dict.fromkeys(("crf", "refine", "bg_thresh", "bg_thresh_used"), "not known") | {"tags_restrict_classes": False}
"""What details say of masks of other programs: nothing that this one did not do."""
NO_MAPS = dict.fromkeys(("bg_thresh", "bg_thresh_used"), "not used")
"""What details say of maps that there are none of."""


def stated_method(params: Params) -> str:
    """The method as details state it; maps and masks of other programs are of none here."""
    return "imported" if imported(params) else params.method


def _stated_segmenter(params: Params) -> Json:
    """What details say of the segmentation network and of how it predicts."""
    facts: Json = {"network": params.segmenter.network}
    if segmenter_network(params.segmenter.network) is not None:
        facts |= {"initial_weights": stated_weights(params.segmenter.weights), "loss": params.segmenter.loss}
    predict = params.predict.model_dump(mode="json")
    facts |= {key: predict[key] for key in ("long_side", "square", "scales", "flip", "fusion")}
    return facts | _stated_crf(params, predict["crf"], predict["crf_iterations"])


def _stated_origin(outside: Mapping[str, OutsideFiles], *knobs: str) -> Json:
    """What details say of maps and masks of other programs: the folder's name, and the hash of its files."""
    found = [f"{knob.partition('.')[0]} of {stated(outside[knob])}" for knob in knobs if knob in outside]
    return {"imported": "; ".join(found)} if found else {}


def _stated_segments(params: Params, outside: Mapping[str, OutsideFiles]) -> Json:
    """What details say of segments that voted."""
    if "masks.segments" not in outside:
        return {}
    return {"segments": f"{stated(outside['masks.segments'])}, share {params.masks.segment_share:g}"}


def _stated_saliency(outside: Mapping[str, OutsideFiles]) -> Json:
    """What details say of saliency maps, whatever read them: by their hash, since folders differ between machines."""
    files = outside.get("data.saliency")
    return {"supervision": f"{WITH_SALIENCY}, maps {files.sha256[:12]}"} if files else {}


def _stated_labels(params: Params, artefact: str) -> Json:
    """What details say of the photographs that numbers are of, and of what pixel labels chose."""
    held_out = artefact in ("classifier", "segmenter")
    return {"split": params.data.validate_on if held_out else "train", "pixel_labels": pixel_labels(params, artefact)}


def _stated_masks(params: Params) -> Json:
    """What the details of pseudo masks say of how they were made of maps."""
    pair = params.masks.confidence_pair
    return _stated_crf(params, params.masks.crf, params.masks.crf_iterations) | (
        {"confidence_pair": pair} if pair else {}
    )


def _stated_crf(params: Params, kernels: str | None, iterations: int | None) -> Json:
    """What details say of a CRF."""
    facts = {"crf_reference": params.crf_reference or "published"} | (
        {"crf_iterations": iterations} if iterations else {}
    )
    return {"crf": kernels} | (facts if kernels else {})


def drawing(params: Params) -> int | None:
    """The seed of the drawn scenes; none for photographs."""
    return params.data.scenes.seed if params.data.name == "scenes" else None


def first_weights(params: Params) -> str:
    """The initial weights of the network that gives the maps' features."""
    groups = list(params.localizer.groups().values())
    return str(groups[0].weights if params.one_stage else params.classifier.weights)  # type: ignore[attr-defined]


def stated_weights(weights: str) -> str:
    """Initial weights as details state them: imagenet, coco, none, or the name of a file without its folder."""
    return weights.rpartition("/")[2]


def shown(params: Params) -> Json:
    """All knobs but those of the machine: neither how the run was done nor where files lie belongs on a page in git."""
    p = params.model_dump(mode="json")
    kept = {key: value for key, value in p.items() if key not in Runtime.model_fields}
    kept["method"] = stated_method(params)
    kept["data"] = {key: value for key, value in p["data"].items() if key not in ("root", "saliency")}
    kept["localizer"] = params.localizer.told()
    kept["cams"] = params.cams.told()
    if params.masks.source == "import":
        kept["masks"] = params.masks.model_dump(mode="json", include=OF_IMPORTED_MASKS)
        kept["bg_thresh"] = kept["bg_thresh"] if params.cams.source != "none" else "not used"
    for knob, (folder, _) in outside_folders(params).items():
        group, name = knob.split(".")
        kept[group] = kept[group] | ({name: expanded(folder).name} if name in kept[group] else {})
    return kept


def runtime(params: Params) -> Runtime:
    """Where the photographs lie and what the machine lends, with `auto` settled."""
    root = params.data.root if params.data.name != "scenes" else "data/prepared/scenes"
    workers = len(os.sched_getaffinity(0)) if params.workers == "auto" else params.workers
    return Runtime(
        root=root,
        device=params.device,
        processes=params.processes,
        workers=workers,
    )
