"""The whole configuration: every group of knobs, and which of them contradict each other."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.affinity.knobs import AffinityKnobs
from models.cam.knobs import ClassifierKnobs
from models.knobs import CrfReference, Format, Knobs, Name, Number, Seed, knob
from models.refine.knobs import NEEDS, RefineKnobs
from models.registry import CLASSIFIERS, METHODS, SEGMENTERS, Method, segmenter_network
from models.segmenters.knobs import PredictKnobs, SegmenterKnobs
from pipeline.config.cams import CamsKnobs
from pipeline.config.data import DataKnobs
from pipeline.config.localizer import LocalizerKnobs
from pipeline.config.masks import BackgroundThreshold, MasksKnobs
from pipeline.config.report import ReportKnobs

ATTENTION = [name for name, classifier in CLASSIFIERS.items() if classifier.attention]
PLAIN = [name for name, classifier in CLASSIFIERS.items() if not classifier.attention]
NEEDED = {"attention": ("classifier with attention", ATTENTION), "convolution": ("convolutional classifier", PLAIN)}


class PrecisionKnobs(Knobs):
    """Number formats that results are computed in; losses, softmax and walks are in float32 in all of them."""

    training: Format = knob(
        "float32", "of trainings; tf32: float32 whose products a GPU forms from 10 bits of mantissa"
    )
    inference: Format = knob("float32", "of maps, walks and predictions")


class Params(Knobs):
    """All knobs, with presets and defaults filled in."""

    method: Name = knob("cam", "the system: a preset in pipeline/presets")
    profile: Literal["compact", "paper"] = knob(
        "compact", "compact: minutes on two CPU cores; paper: published networks and sizes, for a GPU"
    )
    bg_thresh: BackgroundThreshold = knob(
        None,
        "background threshold: from 0 to 1, none (1 - strongest class competes), or a rule that reads no mask: "
        "colours, entropy (one for the data set), otsu (one for each photograph)",
    )
    crf_reference: CrfReference = knob(
        None,
        "longer side that the CRF's published kernels are made for: on other sizes they scale with the picture; "
        "published: the same pixels on every picture",
        "all papers (published)",
    )
    seed: Seed = knob(0, "of every training; the bundled scenes have a seed of their own")
    device: Literal["auto", "cpu", "cuda"] = knob("auto", "where networks run")
    precision: PrecisionKnobs = PrecisionKnobs()
    processes: Annotated[int, Field(ge=1, le=1024), Number] = knob(
        1, "more than one: training and CAM extraction run under torchrun"
    )
    workers: Annotated[int, Field(ge=0, le=256), Number] | Literal["auto"] = knob(
        "auto", "processes that load images and run the CRF; auto: one per core"
    )
    data: DataKnobs
    classifier: ClassifierKnobs
    localizer: LocalizerKnobs
    cams: CamsKnobs
    affinity: AffinityKnobs
    refine: RefineKnobs = RefineKnobs()
    masks: MasksKnobs = MasksKnobs()
    segmenter: SegmenterKnobs
    predict: PredictKnobs = PredictKnobs()
    report: ReportKnobs = ReportKnobs()

    @property
    def training(self) -> Method | None:
        """The second training, where the method has one."""
        return METHODS.get(self.localizer.network)

    @property
    def one_stage(self) -> bool:
        """The localizer trains without a classifier, and its network segments."""
        return self.training is not None and self.training.one_stage

    @model_validator(mode="after")
    def _folder_where_imported(self) -> Params:
        for name, group in (("cams", self.cams), ("masks", self.masks)):
            if group.source == "import" and group.folder is None:
                raise ValueError(f"{name}.source = import reads {name}.folder, which is none; give the folder")
        return self

    @model_validator(mode="after")
    def _one_stage_is_whole(self) -> Params:
        wrong = {
            "classifier.network = none": self.classifier.network == "none" and self.cams.source == "network",
            "segmenter.network = localizer": self.segmenter.network == "localizer",
        }
        if any(wrong.values()) and not self.one_stage:
            whole = ", ".join(name for name, method in METHODS.items() if method.one_stage)
            raise ValueError(
                f"{', '.join(name for name, is_so in wrong.items() if is_so)} needs a localizer.network that trains "
                f"without a classifier and segments ({whole}); it is {self.localizer.network}: set it, or choose others"
            )
        return self

    @model_validator(mode="after")
    def _given_masks_are_learned(self) -> Params:
        if self.masks.source != "maps" and segmenter_network(self.segmenter.network) is None:
            raise ValueError(
                f"masks.source = {self.masks.source} needs a segmenter that learns from masks, but segmenter.network = "
                f"{self.segmenter.network}; choose {', '.join(SEGMENTERS)}"
            )
        return self

    @model_validator(mode="after")
    def _segmenter_sees_several_photographs(self) -> Params:
        own, learning = segmenter_network(self.segmenter.network), self.segmenter.optimisation
        if own is not None and not own.alone and learning.batch // (self.processes * learning.accumulate) < 2:
            raise ValueError(
                f"segmenter.optimisation.batch = {learning.batch} over processes = {self.processes} and accumulate = "
                f"{learning.accumulate} leaves each fewer than two photographs, which the batch normalisation of "
                f"{self.segmenter.network} needs; raise the batch, or lower accumulate or processes"
            )
        return self

    @model_validator(mode="after")
    def _true_masks_are_given(self) -> Params:
        if self.masks.source == "truth" and self.data.name == "folder" and self.data.folder.masks is None:
            raise ValueError(
                "masks.source = truth learns from ground-truth masks, but data.folder.masks = none gives no folder of "
                "masks; give one, or choose another method"
            )
        return self

    @model_validator(mode="after")
    def _maps_where_needed(self) -> Params:
        readers = {
            "masks.source = maps": self.masks.source == "maps",
            f"refine.rule = {self.refine.rule}": self.refine.rule != "none",
            f"affinity.network = {self.affinity.network}": self.affinity.network != "none",
        }
        if self.cams.source == "none" and any(readers.values()):
            raise ValueError(
                f"cams.source = none leaves no maps, but {', '.join(name for name, is_so in readers.items() if is_so)} "
                "reads some; choose network or import"
            )
        return self

    @model_validator(mode="after")
    def _classifier_fits(self) -> Params:
        words, choices = NEEDED.get(self.training.classifier if self.training else "", ("", None))
        if choices is not None and self.classifier.network not in choices:
            raise ValueError(
                f"localizer.network = {self.localizer.network} needs a {words}, but classifier.network = "
                f"{self.classifier.network}; choose {', '.join(choices)}"
            )
        return self

    @model_validator(mode="after")
    def _wide_head_where_there_is_room(self) -> Params:
        if self.classifier.head_width is not None and self.classifier.network not in PLAIN:
            raise ValueError(
                f"classifier.head_width = {self.classifier.head_width} needs a convolutional classifier, but "
                f"classifier.network = {self.classifier.network}; choose {', '.join(PLAIN)}, or set head_width to none"
            )
        return self

    @model_validator(mode="after")
    def _earlier_maps_where_given(self) -> Params:
        own = self.training.earlier if self.training else ()
        for text in self.cams.rules:
            name = self.cams.rule(text)[0]
            givers = [method for method, facts in METHODS.items() if name in facts.earlier]
            if givers and name not in own:
                raise ValueError(
                    f"cams.rules = {text} needs localizer.network = {' or '.join(givers)}, whose network has such "
                    f"maps; it is {self.localizer.network}"
                )
        return self

    @model_validator(mode="after")
    def _attention_where_needed(self) -> Params:
        needy = [text for text in self.cams.rules if self.cams.reads_attention(text)]
        if needy and self.training is not None and self.training.classifier != "attention":
            raise ValueError(
                f"cams.rules = {', '.join(needy)} read attention, but the network that localizer.network = "
                f"{self.localizer.network} trains has none; set cams.rules to [none]"
            )
        if needy and self.classifier.network not in ATTENTION:
            raise ValueError(
                f"cams.rules = {', '.join(needy)} read attention, but classifier.network = {self.classifier.network} "
                f"has none; choose {', '.join(ATTENTION)}"
            )
        return self

    @model_validator(mode="after")
    def _affinity_where_needed(self) -> Params:
        wanted = NEEDS.get(self.refine.rule, self.affinity.network)
        if wanted != self.affinity.network:
            raise ValueError(
                f"refine.rule = {self.refine.rule} needs affinity.network = {wanted}, but it is "
                f"{self.affinity.network}; set it"
            )
        return self
