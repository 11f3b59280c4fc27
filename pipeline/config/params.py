"""The typed configuration: what each stage may be told, and how params.yaml becomes that.

params.yaml holds every knob. The word `preset` as a value means: take it from the layers of the method's preset
(`pipeline/presets/`), in the order base, base for this profile, base for this profile and data set, then the same
three of the method (before them those of the method that it is `like`); later layers win. Anything else in
params.yaml wins over the preset.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from models.knobs import Knobs as Section
from models.propagation.rules import load_rule, rule_names
from pipeline.config.cams import Cams
from pipeline.run.errors import UserError, listed

PRESETS = Path(__file__).parents[1] / "presets"
CONFIG = Path("data/config")
ARTEFACTS = ("seeds", "refined", "masks", "segmenter")
# Scored besides them: maps that the localizer's training left of a few photographs, and those of several rules.
EVALUATED = ("localizer", "rules", *ARTEFACTS)
Transformer = Literal["vit_base", "lite0_vit", "lite0_early_vit", "vit_test"]
TRANSFORMERS: tuple[str, ...] = get_args(Transformer)
# The trainings whose networks give earlier maps, and the names of these.
EARLIER = {"toco": ("aux",), "esol": ("baseline", "expansion")}


def _none_word(value: Any) -> Any:
    """The word none, in any case, and YAML's null are the same value."""
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a truth value is not a number")
    return value


Maybe = BeforeValidator(_none_word)
Number = BeforeValidator(_no_bool)
Seed = Annotated[int, Number, Field(ge=0, lt=2**31)]
Share = Annotated[float, Number, Field(ge=0, le=1)]
Positive = Annotated[float, Number, Field(gt=0)]
NonNegative = Annotated[float, Number, Field(ge=0)]
Count = Annotated[int, Number, Field(ge=1)]
Name = Annotated[str, Field(min_length=1)]
Side = Annotated[int, Number, Field(ge=32, le=4096)]
Pair = Annotated[list[Count], Field(min_length=2, max_length=2)]
Scales = Annotated[list[Annotated[float, Number, Field(ge=0.1, le=4)]], Field(min_length=1, max_length=12)]
Dilations = Annotated[list[Count], Field(min_length=1, max_length=12)]
TargetPhase = Annotated[str, Field(pattern=r"^\d+:(share|ema|freeze|auto)(:(iteration|epoch))?$")]
BackgroundRule = Annotated[Share | Literal["otsu"] | None, Maybe]


class ScenesData(Section):
    """The bundled, generated data set."""

    train: Count
    val: Count
    size: Annotated[int, Number, Field(ge=64, le=1024)]
    seed: Seed


class VocData(Section):
    """PASCAL VOC 2012."""

    train_split: Literal["train", "train_aug"]
    sbd_root: Annotated[Name | None, Maybe]
    download: bool


class FolderData(Section):
    """A folder of photographs and a CSV of tags."""

    tags: Name
    images: Name
    masks: Annotated[Name | None, Maybe]
    val_share: Annotated[float, Number, Field(gt=0, lt=1)]


class Data(Section):
    """Where photographs and tags come from."""

    name: Literal["scenes", "voc2012", "folder"]
    root: Annotated[Name | None, Maybe]
    watch: Name
    classes: Literal["all"] | Annotated[list[Name], Field(min_length=1)]
    limit: Annotated[Count | None, Maybe]
    max_megapixels: Positive
    scenes: ScenesData
    voc2012: VocData
    folder: FolderData

    @model_validator(mode="after")
    def _root_where_needed(self) -> Data:
        if self.name != "scenes" and self.root is None:
            raise ValueError(
                f"data.root is none, but data.name = {self.name} reads photographs from there; give its folder"
            )
        if isinstance(self.classes, list) and len(set(self.classes)) != len(self.classes):
            raise ValueError("data.classes names a class twice")
        return self


class Rates(Section):
    """SGD or AdamW with a linear rise and the polynomial schedule."""

    optimiser: Literal["sgd", "adamw"]
    lr: Positive
    head_lr_factor: Positive
    momentum: Annotated[float, Number, Field(ge=0, lt=1)]
    weight_decay: NonNegative
    warm_up: Annotated[float, Number, Field(ge=0, lt=1)]
    poly_power: NonNegative


class Optimisation(Rates):
    """How long and at what rates a stage trains."""

    epochs: Count
    batch: Count


class Augmentation(Section):
    """Random resizing, mirroring, recolouring and cropping of training images."""

    long_side: Pair
    colour_jitter: Share
    crop: Annotated[int, Number, Field(ge=32, le=2048)]

    @model_validator(mode="after")
    def _ordered(self) -> Augmentation:
        if self.long_side[0] > self.long_side[1]:
            raise ValueError(f"long_side is a pair smallest, largest; got {self.long_side}")
        return self


class Classifier(Section):
    """The multi-label classifier on tags."""

    network: Literal[
        "none",
        "efficientnet_lite0",
        "efficientnet_lite0_hybrid",
        "resnet50",
        "resnet38",
        "conformer_tiny",
        "conformer_ti",
        "conformer_s",
        "conformer_b",
    ]
    weights: Name
    dropout: Annotated[float, Number, Field(ge=0, lt=1)]
    optimisation: Optimisation
    augmentation: Augmentation


class Branch(Section):
    """The dual branch's convolutional classifier with activation modulation, and how it is drawn to the transformer."""

    network: Annotated[Literal["efficientnet_lite0", "resnet50"] | None, Maybe]
    weights: Name
    stages: Annotated[list[Annotated[int, Number, Field(ge=0, le=4)]], Field(max_length=4)]
    channel: bool
    spatial: bool
    combine: Literal["serial", "parallel"]
    merge: Literal["mean", "sum", "product"]
    reduction: Annotated[int, Number, Field(ge=0)]
    normalise: bool
    residual: bool
    gaussian: Literal["peak1", "pdf", "stdnormal"]
    statistics: Literal["sample", "batch"]
    unbiased: bool
    detach: bool
    gate_scale: Positive
    consistency_weights: Annotated[list[NonNegative], Field(min_length=2, max_length=2)]
    consistency_norm: Literal[1, 2]
    consistency_spread: bool
    consistency_start: Share
    leader: Literal["none", "transformer", "convolution"]
    rates: Rates


class Toco(Section):
    """Token contrast: the one-stage training of a transformer with a decoder."""

    decoder_width: Count
    scales: Scales
    crop: Annotated[int, Number, Field(ge=8)]
    crops: Count
    temperature: Positive
    low: Share
    high: Annotated[list[Share], Field(min_length=2, max_length=2)]
    high_of_classes: Annotated[list[Share] | None, Maybe]
    high_moves: list[Literal["regions", "pairs", "masks"]]
    label_source: Literal["final", "aux"]
    ptc_weight: NonNegative
    ctc_weight: NonNegative
    mask_weight: NonNegative
    contrast_start: Share
    mask_start: Share
    dilations: Dilations
    compat: list[Literal["absolute_pairs", "extra_term", "pixel_boxes", "flip_bug"]]
    branch: Branch

    @model_validator(mode="after")
    def _thresholds_ordered(self) -> Toco:
        ends = [*self.high, *(self.high_of_classes or [])]
        if min(ends) < self.low:
            raise ValueError(f"low is at most every high threshold; got low {self.low}, high {ends}")
        return self


class Esol(Section):
    """Expansion and shrinkage of localization: samplers on a frozen classifier, and their losses."""

    kernel: Literal["dirac", "trained"]
    reach: Positive
    clip: Literal["none", "const", "maxfrac", "quantile"]
    clip_level: Positive
    inverse_weight: NonNegative
    inverse_over: Literal["all", "present"]
    ceiling: Positive
    area: Literal["max", "sigmoid"]
    area_weight: NonNegative

    @model_validator(mode="after")
    def _share_where_one_is_meant(self) -> Esol:
        if self.clip in ("maxfrac", "quantile") and self.clip_level > 1:
            raise ValueError(f"clip = {self.clip} takes a clip_level of at most 1; got {self.clip_level}")
        return self


class LocalizerKnobs(Section):
    """The second training of methods that have one: the knobs that stand in no group of one rule."""

    rule: Literal["none", "amn", "bao", "toco", "esol"]
    backbone: Literal["efficientnet_lite0", "resnet50", "resnet38", Transformer]
    weights: Name
    confidence_pair: Annotated[list[Share], Field(min_length=2, max_length=2)]
    crf: Literal["psa", "irn", "deeplab", "toco_seg", "toco_cam", "afa"]
    max_side: Annotated[int, Number, Field(ge=64)]
    smoothing: Annotated[float, Number, Field(ge=0, lt=1)]
    foreground_weight: Positive
    pixel_weight: NonNegative
    label_source: Literal["online_target", "static"]
    label_norm: Literal["max", "minmax"]
    label_background: Annotated[Share | None, Maybe]
    am_head: Literal["conv3x3", "conv1x1", "aspp"]
    reading: Literal["released", "clean"]
    target_schedule: Annotated[list[TargetPhase], Field(min_length=1)]
    momentum: Annotated[list[Share], Field(min_length=2, max_length=2)]
    momentum_restart: Literal["epoch", "none"]
    track: Annotated[int, Number, Field(ge=0)]
    optimisation: Optimisation
    augmentation: Augmentation

    @model_validator(mode="after")
    def _backbone_of_the_rule(self) -> LocalizerKnobs:
        transformer = self.backbone in TRANSFORMERS
        if self.rule in ("amn", "toco") and transformer != (self.rule == "toco"):
            raise ValueError(
                f"localizer.rule = toco goes with localizer.backbone = {', '.join(TRANSFORMERS)}, amn with the other "
                f"ones; got {self.rule} and {self.backbone}"
            )
        return self

    @model_validator(mode="after")
    def _phases_ascend(self) -> LocalizerKnobs:
        starts = [phase[0] for phase in self.phases()]
        if self.rule != "bao" or self.label_source == "static":
            return self
        if starts[0] != 0 or starts != sorted(set(starts)) or starts[-1] >= self.optimisation.epochs:
            raise ValueError(
                f"localizer.target_schedule = {', '.join(self.target_schedule)} must start at epoch 0 and ascend below "
                f"localizer.optimisation.epochs = {self.optimisation.epochs}; change either"
            )
        return self

    def phases(self) -> list[tuple[Any, ...]]:
        """The target's schedule as (from epoch, mode) or (from epoch, mode, every)."""
        words = [phase.split(":") for phase in self.target_schedule]
        return [(int(first), *others) for first, *others in words]


class Localizer(LocalizerKnobs):
    """The second training of methods that have one."""

    toco: Toco
    esol: Esol

    @model_validator(mode="after")
    def _room_for_crops(self) -> Localizer:
        crop, count, side = self.toco.crop, self.toco.crops, self.augmentation.crop
        places = max(side - crop // 2 * 2, 0) ** 2  # of their centres
        if self.rule == "toco" and (crop > side or places < count):
            raise ValueError(
                f"localizer.toco.crop = {crop} leaves no room for localizer.toco.crops = {count} in "
                f"localizer.augmentation.crop = {side}; lower it"
            )
        return self


class Affinity(Section):
    """The learned pairwise affinity of methods that have one."""

    network: Literal["none", "affinitynet", "irn"]
    backbone: Literal["efficientnet_lite0", "resnet50", "resnet38"]
    weights: Name
    reading: Literal["released", "published"]
    confidence_pair: Annotated[list[NonNegative], Field(min_length=2, max_length=2)]
    crf: Literal["psa", "irn", "deeplab", "toco_seg", "toco_cam", "afa"]
    max_side: Annotated[int, Number, Field(ge=64)]
    radius: Annotated[int, Number, Field(ge=2, le=16)]
    optimisation: Optimisation
    augmentation: Augmentation

    @model_validator(mode="after")
    def _crop_on_grid(self) -> Affinity:
        if self.augmentation.crop % 16:
            raise ValueError(f"affinity.augmentation.crop must be a multiple of 16; got {self.augmentation.crop}")
        return self


class Refine(Section):
    """The propagation rule that runs on the CAM store."""

    rule: Literal["none", "psa_walk", "irn_walk", "par"]
    long_side: Annotated[Side | None, Maybe]
    radius: Annotated[int, Number, Field(ge=2, le=16)]
    border: Literal["psa", "full"]
    beta: Positive
    log2_steps: Annotated[int, Number, Field(ge=0, le=14)]
    alpha: Positive
    tolerance: Annotated[float, Number, Field(gt=0, lt=1)]
    iterations: Count
    dilations: Dilations
    batch: Count


class Masks(Section):
    """From maps to pseudo masks."""

    crf: Annotated[Literal["psa", "irn", "deeplab", "toco_seg", "toco_cam", "afa"] | None, Maybe]
    crf_unary: Literal["labels", "softmax"]
    unary_labels: Annotated[Annotated[int, Number, Field(ge=2)] | None, Maybe]
    confidence_pair: Annotated[Annotated[list[Share], Field(min_length=2, max_length=2)] | None, Maybe]
    max_side: Annotated[int, Number, Field(ge=64)]

    @model_validator(mode="after")
    def _pair_ordered(self) -> Masks:
        if self.confidence_pair is not None and self.confidence_pair[0] < self.confidence_pair[1]:
            raise ValueError(
                f"confidence_pair is foreground, background with foreground >= background; got {self.confidence_pair}"
            )
        return self


class Segmenter(Section):
    """The network trained on pseudo masks, and its test-time settings."""

    network: Literal["efficientnet_lite0_aspp", "deeplabv3_resnet101", "localizer"]
    weights: Name
    optimisation: Optimisation
    augmentation: Augmentation
    test_long_side: Annotated[Side | None, Maybe]
    test_scales: Scales
    test_crf: Annotated[Literal["psa", "irn", "deeplab", "toco_seg", "toco_cam", "afa"] | None, Maybe]


class Report(Section):
    """The HTML page."""

    gallery: Annotated[int, Number, Field(ge=0, le=200)]


class Params(Section):
    """params.yaml, with every `preset` filled in."""

    method: Name
    profile: Literal["compact", "paper"]
    bg_thresh: BackgroundRule
    seed: Seed
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    processes: Annotated[int, Number, Field(ge=1, le=1024)]
    workers: Annotated[int, Number, Field(ge=0, le=256)] | Literal["auto"]
    data: Data
    classifier: Classifier
    localizer: Localizer
    cams: Cams
    affinity: Affinity
    refine: Refine
    masks: Masks
    segmenter: Segmenter
    report: Report

    @model_validator(mode="after")
    def _one_stage_is_whole(self) -> Params:
        if self.localizer.rule == "toco":
            return self
        wrong = {
            "classifier.network = none": self.classifier.network == "none",
            "segmenter.network = localizer": self.segmenter.network == "localizer",
        }
        if any(wrong.values()):
            raise ValueError(
                f"{', '.join(name for name, is_so in wrong.items() if is_so)} needs localizer.rule = toco, which has "
                f"no classifier and segments; it is {self.localizer.rule}"
            )
        return self

    @model_validator(mode="after")
    def _earlier_maps_where_given(self) -> Params:
        for text in self.cams.rules:
            earlier = load_rule(self.cams.rule(text)[0]).earlier
            if earlier is not None and earlier not in EARLIER.get(self.localizer.rule, ()):
                trained = ", ".join(name for name, maps in EARLIER.items() if earlier in maps)
                raise ValueError(
                    f"cams.rules = {text} needs localizer.rule = {trained}, whose network has such maps; it is "
                    f"{self.localizer.rule}"
                )
        return self

    @property
    def attentive(self) -> bool:
        """The classifier has attention, and so no head of plain class activation maps."""
        return self.classifier.network.startswith(("conformer", "efficientnet_lite0_hybrid"))

    @model_validator(mode="after")
    def _plain_maps_where_needed(self) -> Params:
        if self.localizer.rule == "esol" and self.attentive:
            raise ValueError(
                "localizer.rule = esol needs a convolutional classifier, but classifier.network = "
                f"{self.classifier.network}; choose efficientnet_lite0, resnet50 or resnet38"
            )
        return self

    @model_validator(mode="after")
    def _attention_where_needed(self) -> Params:
        needy = [text for text in self.cams.rules if load_rule(self.cams.rule(text)[0]).needs]
        if needy and not self.attentive:
            raise ValueError(
                f"cams.rules = {', '.join(needy)} read attention, but classifier.network = {self.classifier.network} "
                "has none; choose efficientnet_lite0_hybrid or a conformer"
            )
        return self


# ------------------------------------------------------------------------------------------------- from file to Params


def methods() -> list[str]:
    """Names of the methods that have a preset."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml") if path.stem != "base")


def _merge(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """`high` over `low`, group by group."""
    merged = dict(low)
    for key, value in high.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _preset(name: str) -> dict[str, Any]:
    """The layers of one preset file."""
    layers: dict[str, Any] = yaml.safe_load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8"))
    return layers


def _lineage(method: str) -> list[dict[str, Any]]:
    """The presets that a method is `like`, the first ancestor first, and its own."""
    own = _preset(method)
    return [*(_lineage(own["like"]) if "like" in own else []), own]


def preset_values(method: str, profile: str, data_name: str) -> dict[str, Any]:
    """What the preset layers give for a method, profile and data set (see the module's text for their order)."""
    values: dict[str, Any] = {}
    for layers in (_preset("base"), *_lineage(method)):
        for layer in ("common", profile, f"{profile}_{data_name}"):
            values = _merge(values, layers.get(layer) or {})
    return values


def _fill(knobs: Any, preset: Any, where: str, missing: list[str]) -> Any:
    """Replace every value `preset` in `knobs` by the preset's own."""
    if isinstance(knobs, dict):
        given = preset if isinstance(preset, dict) else {}
        return {k: _fill(v, given.get(k), f"{where}.{k}" if where else str(k), missing) for k, v in knobs.items()}
    if knobs == "preset":
        if preset is None:
            missing.append(f"{where} = preset, but the preset gives no value for it; set it")
        return preset
    return knobs


def _at(tree: Any, location: tuple[int | str, ...]) -> tuple[str, Any]:
    """The dotted name and the value that a validation error speaks of (type names inside unions are left out)."""
    keys: list[str] = []
    for step in location:
        if (isinstance(tree, dict) and step in tree) or (
            isinstance(tree, list) and isinstance(step, int) and step < len(tree)
        ):
            tree = tree[step]  # type: ignore[index]
        elif isinstance(step, str) and isinstance(tree, dict) and step == location[-1]:
            tree = None
        else:
            continue
        keys.append(str(step))
    return ".".join(keys), tree


ALLOWED = {
    "bg_thresh": "a number from 0 to 1, none (no threshold: background is 1 - the strongest class), otsu, or preset",
}


def _explain(error: ValidationError, raw: dict[str, Any]) -> list[str]:
    """One line for each wrong knob: key, value, type, what is allowed."""
    reasons: dict[str, tuple[Any, list[str]]] = {}
    for item in error.errors():
        key, value = _at(raw, item["loc"])
        reason = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            reason = "no such knob; see params.yaml as shipped"
        elif item["type"] == "missing":
            reason = "this knob is missing; see params.yaml as shipped"
        reasons.setdefault(key, (value, []))[1].append(reason)
    lines = []
    for key, (value, why) in reasons.items():
        allowed = ALLOWED.get(key) or "; or ".join(dict.fromkeys(why))
        shown = "" if isinstance(value, dict) or value is None else f" = {value!r} ({type(value).__name__})"
        lines.append(f"{key or 'params'}{shown}: {allowed}")
    return lines


def resolve(raw: Any) -> Params:
    """Check the whole of params.yaml and fill in the preset.

    Args:
        raw: what YAML gave for params.yaml.

    Returns:
        The checked configuration.

    Raises:
        UserError: naming each wrong key, its value and type, and what is allowed; all of them at once.
    """
    if not isinstance(raw, dict):
        raise UserError("params.yaml holds no knobs; restore the shipped file")
    method, profile, data = raw.get("method"), raw.get("profile"), raw.get("data")
    if method not in methods():
        raise UserError(
            f"params.yaml: method = {method!r} ({type(method).__name__}): allowed are {', '.join(methods())}"
        )
    if profile not in ("compact", "paper"):
        raise UserError(f"params.yaml: profile = {profile!r} ({type(profile).__name__}): allowed are compact, paper")
    data_name = str(data.get("name")) if isinstance(data, dict) else ""
    problems: list[str] = []
    preset = preset_values(method, profile, data_name)
    filled = _fill(raw, preset, "", problems)
    groups = {name: group for name, group in preset["cams"].items() if name in rule_names()}
    filled["cams"] = _merge(groups, filled["cams"])
    try:
        params = Params.model_validate(filled)
    except ValidationError as error:
        problems += _explain(error, filled)
    if problems:
        raise UserError("params.yaml cannot be used:\n" + listed(problems))
    return params


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        UserError: the file is missing, is not YAML, or holds a wrong knob.
    """
    try:
        return resolve(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"{path} not found; run from the root of the repository") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not readable YAML: {error}") from error


# ------------------------------------------------------------------------------------------- what each stage is told


class PrepareDataConfig(Section):
    """What prepare_data is told: `source` is the group of the one data set in use."""

    name: Literal["scenes", "voc2012", "folder"]
    root: Annotated[Name | None, Maybe]
    classes: Literal["all"] | list[Name]
    limit: Count | None
    max_megapixels: Positive
    source: ScenesData | VocData | FolderData


class TrainClassifierConfig(Classifier):
    """What train_classifier is told."""

    seed: Seed


class TrainLocalizerConfig(LocalizerKnobs):
    """What train_localizer is told: the group of its rule alone; of maps, for rules that make some while they train."""

    toco: Toco | None
    esol: Esol | None
    seed: Seed
    cams: Cams | None


class TrainAffinityConfig(Affinity):
    """What train_affinity is told."""

    seed: Seed


class MakeMasksConfig(Masks):
    """What make_masks is told."""

    bg_thresh: BackgroundRule


class TrainSegmenterConfig(Segmenter):
    """What train_segmenter is told."""

    seed: Seed


class EvaluateConfig(Section):
    """What evaluate is told: the background rule, and the protocol that every metrics file states."""

    bg_thresh: BackgroundRule
    protocol: dict[str, Any]


class ReportConfig(Report):
    """What report is told: its own knobs, and all others for display."""

    params: dict[str, Any]


STAGES: dict[str, type[Section]] = {
    "prepare_data": PrepareDataConfig,
    "train_classifier": TrainClassifierConfig,
    "train_localizer": TrainLocalizerConfig,
    "extract_cams": Cams,
    "train_affinity": TrainAffinityConfig,
    "refine_cams": Refine,
    "make_masks": MakeMasksConfig,
    "train_segmenter": TrainSegmenterConfig,
    **{f"evaluate_{artefact}": EvaluateConfig for artefact in EVALUATED},
    "report": ReportConfig,
}


class Runtime(Section):
    """How to run, not what to compute: no result depends on it, so no stage's hash does."""

    root: str | None
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    processes: int
    workers: int


def _as_text(knobs: dict[str, Any]) -> str:
    """Knobs in one line, as the protocol of a metrics file shows them."""
    return ", ".join(f"{key}={'none' if value is None else value}" for key, value in knobs.items())


def stage_configs(params: Params) -> dict[str, dict[str, Any]]:
    """One resolved group of knobs for each stage, holding only what that stage's result depends on."""
    p = params.model_dump(mode="json")
    seed, background = {"seed": p["seed"]}, {"bg_thresh": p["bg_thresh"]}
    data = {key: p["data"][key] for key in ("name", "root", "classes", "limit", "max_megapixels")}
    protocols = _protocols(params)
    return {
        "prepare_data": data | {"source": p["data"][params.data.name]},
        "train_classifier": p["classifier"] | seed,
        "train_localizer": _localizer_config(params) | seed,
        "extract_cams": params.cams.told(),
        "train_affinity": p["affinity"] | seed,
        "refine_cams": p["refine"],
        "make_masks": p["masks"] | background,
        "train_segmenter": p["segmenter"] | seed,
        **{f"evaluate_{name}": background | {"protocol": protocols[name]} for name in ("rules", *ARTEFACTS)},
        "evaluate_localizer": {"bg_thresh": None, "protocol": protocols["localizer"]},
        "report": p["report"] | {"params": _shown(params)},
    }


def _localizer_config(params: Params) -> dict[str, Any]:
    """The localizer's knobs without the groups of other rules, and those of the maps where its rule makes some.

    Static labels come from maps at all scales, tracked maps are made at one, whatever `cams.scales` says.
    """
    knobs, rule = params.localizer.model_dump(mode="json"), params.localizer.rule
    others = {group: None for group in ("toco", "esol") if group != rule}
    cams = params.cams.told()
    if params.localizer.label_source != "static" and rule == "bao":
        cams["scales"] = [1.0]
    return knobs | others | {"cams": cams if rule in ("amn", "bao") else None}


def _protocols(params: Params) -> dict[str, dict[str, Any]]:
    """What the metrics of every artefact say of how it was made."""
    p = params.model_dump(mode="json")
    run = {key: p[key] for key in ("method", "profile", "seed")}
    chosen = "constants of the compact preset, on scenes of another drawing seed" if p["profile"] == "compact" else None
    weights, maps = p["localizer" if p["localizer"]["rule"] == "toco" else "classifier"]["weights"], p["cams"]
    views = {f"cam_{key}": maps[key] for key in ("long_side", "scales", "square", "fusion")}
    cams = run | {"initial_weights": weights, "chosen_with_masks": chosen} | views
    rules = {text: _as_text(params.cams.rule(text)[1].model_dump()) for text in maps["rules"]}
    seeds = cams | {"rule": maps["rules"][0], "rule_knobs": rules[maps["rules"][0]]}
    refined = seeds | {"refine": p["refine"]["rule"]}
    alone = p["segmenter"]["network"] != "localizer"
    segmenter = {
        "network": p["segmenter"]["network"],
        "initial_weights": p["segmenter"]["weights"] if alone else weights,
        "test_scales": p["segmenter"]["test_scales"],
        "crf": p["segmenter"]["test_crf"],
    }
    self_training = ("track", "label_source", "target_schedule", "momentum", "reading")
    shown_knobs = self_training if params.localizer.rule == "bao" else ()
    return {
        "localizer": run | {"crf": None} | {key: p["localizer"][key] for key in shown_knobs},
        "rules": cams | {"crf": None, "rules": rules},
        "seeds": seeds | {"crf": None},
        "refined": refined | {"crf": None},
        "masks": refined | {"crf": p["masks"]["crf"]},
        "segmenter": run | segmenter,
    }


def _shown(params: Params) -> dict[str, Any]:
    """All knobs but those of the machine: neither how the run was done nor where files lie belongs on a page in git."""
    p = params.model_dump(mode="json")
    shown = {key: value for key, value in p.items() if key not in Runtime.model_fields}
    shown["data"] = {key: value for key, value in p["data"].items() if key not in ("root", "watch")}
    return shown


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


S = TypeVar("S", bound=Section)


def stage_config(stage: str, section: type[S]) -> S:
    """The resolved knobs of one stage, as `configure` wrote them.

    Raises:
        UserError: `configure` has not run.
    """
    path = CONFIG / f"{stage}.json"
    try:
        return section.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"{path} not found; run `dvc repro` or `python -m pipeline.configure` first") from error
    except (ValidationError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not what configure writes; run `python -m pipeline.configure`: {error}") from error
