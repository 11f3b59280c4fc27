"""Knobs: values that a user may set, each declared once, beside the code that reads it.

A group of knobs is a class below `Knobs`. A knob is a field with its type and bound; `knob(...)` gives its published
default, its meaning, and where the default comes from. Modules that declare knobs import no PyTorch, so that a
configuration is checked in no time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic_core import core_schema

from models.kernels import KERNELS


class Knobs(BaseModel):
    """A checked, immutable group of knobs: no unknown keys, no silent conversion, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def knob(default: Any, meaning: str, source: str = "") -> Any:
    """The declaration of a knob.

    Args:
        default: its value where neither the user nor a preset gives one; `...` for knobs that always need one.
        meaning: what it does, and what its words mean.
        source: where the default comes from: `published`, `released` or `reconstructed`, and whose it is.
    """
    return Field(default, description=meaning, json_schema_extra={"source": source} if source else None)


def _none_word(value: Any) -> Any:
    """The word none, in any case, and YAML's null are the same value."""
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a truth value is not a number")
    return value


Maybe = BeforeValidator(_none_word)
Number = BeforeValidator(_no_bool)
Seed = Annotated[int, Field(ge=0, lt=2**31), Number]
Share = Annotated[float, Field(ge=0, le=1), Number]
Fraction = Annotated[float, Field(ge=0, lt=1), Number]
Positive = Annotated[float, Field(gt=0), Number]
NonNegative = Annotated[float, Field(ge=0), Number]
Count = Annotated[int, Field(ge=1), Number]
Index = Annotated[int, Field(ge=0), Number]
Name = Annotated[str, Field(min_length=1)]
Side = Annotated[int, Field(ge=32, le=4096), Number]
WorkingSide = Annotated[int, Field(ge=64), Number]
Pair = Annotated[list[Count], Field(min_length=2, max_length=2)]
Factors = Annotated[list[Annotated[float, Field(ge=0.1, le=4), Number]], Field(min_length=2, max_length=2)]
Shares = Annotated[list[Share], Field(min_length=2, max_length=2)]
Scales = Annotated[list[Annotated[float, Field(ge=0.1, le=4), Number]], Field(min_length=1, max_length=12)]
Dilations = Annotated[list[Count], Field(min_length=1, max_length=12)]
Radius = Annotated[int, Field(ge=2, le=16), Number]
WEIGHTS = "initial weights: imagenet, none, or the path of a state dict (.pth, .safetensors)"
Format = Literal["float32", "tf32", "bfloat16", "float16"]
"""Number formats; tf32 is float32 whose products a GPU forms from 10 bits of mantissa, and float32 elsewhere."""


class Rates(Knobs):
    """SGD, Adam or AdamW with a linear rise and the polynomial schedule."""

    optimiser: Literal["sgd", "adam", "adamw"] = knob(
        "sgd", "which optimiser; adam adds weight decay to the gradient, adamw takes it from the weights"
    )
    lr: Positive = knob(..., "first learning rate of the network before its head")
    head_lr_factor: Positive = knob(..., "the head learns this many times faster")
    biases: Literal["as_weights", "caffe"] = knob(
        "as_weights", "as_weights; caffe: biases learn twice as fast as the weights beside them, without weight decay"
    )
    momentum: Fraction = knob(..., "of sgd; the others have none")
    weight_decay: NonNegative = knob(..., "of every weight that learns")
    warm_up: Fraction = knob(0.0, "share of all steps in which lr first rises from nearly 0")
    poly_power: NonNegative = knob(..., "lr falls with (1 - step / steps) to this power; 0: constant")
    refresh: Count = knob(1, "lr keeps its value for so many steps")


class Optimisation(Rates):
    """How long and at what rates a stage trains."""

    epochs: Count = knob(..., "passes over the training images")
    max_steps: Annotated[Count | None, Maybe] = knob(
        None, "no more steps than these; the last pass ends with them; none: all of `epochs`"
    )
    batch: Count = knob(..., "images per step, over all processes")
    accumulate: Count = knob(
        1,
        "parts that a batch is computed in one after the other, for want of memory; their gradients add up",
    )


class Augmentation(Knobs):
    """Random resizing, mirroring, colour jitter and cropping of training images."""

    long_side: Annotated[Pair | None, Maybe] = knob(
        None, "smallest and largest longer side in pixels, drawn for each view; none: `scale` says it"
    )
    scale: Annotated[Factors | None, Maybe] = knob(
        None, "smallest and largest factor of the photograph's own size, drawn for each view; none: `long_side` says it"
    )
    scale_step: Annotated[Positive | None, Maybe] = knob(
        None, "factors are the smallest one and so much more each time; none: any between"
    )
    colour_jitter: Share = knob(
        0.0, "brightness, contrast, saturation change by up to this share, hue by a third of it; 0: none"
    )
    crop: Annotated[int, Field(ge=32, le=2048), Number] = knob(..., "side of the square crop")

    @model_validator(mode="after")
    def _one_size_ordered(self) -> Augmentation:
        if (self.long_side is None) == (self.scale is None):
            raise ValueError(
                f"one of long_side (pixels) and scale (factor of the photograph's size) is a pair and the other none; "
                f"got {self.long_side} and {self.scale}"
            )
        for name, pair in (("long_side", self.long_side), ("scale", self.scale)):
            if pair is not None and pair[0] > pair[1]:
                raise ValueError(f"{name} is a pair smallest, largest; got {pair}")
        if self.scale_step is not None and self.scale is None:
            raise ValueError(f"scale_step = {self.scale_step} needs a scale, which is none")
        return self


class OneOf:
    """A bound for words: one of some names, such as the keys of a table in `models.registry`."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Check after the type."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The names, for `make knobs`."""
        return {"enum": list(self.names)}

    def _check(self, value: str) -> str:
        if value not in self.names:
            raise ValueError(f"allowed are {', '.join(self.names)}")
        return value


KernelName = Annotated[str, OneOf(KERNELS)]
"""Published settings of the dense CRF."""


def _published_word(value: Any) -> Any:
    return None if value == "published" else value


CrfReference = Annotated[Annotated[int, Field(ge=64, le=4096), Number] | None, BeforeValidator(_published_word)]
"""The longer side that the CRF's published deviations are made for; None: they stay as published."""


class MethodKnobs(Knobs):
    """The group of a second training's own knobs."""

    @property
    def map_scales(self) -> Literal["none", "one", "all"]:
        """At which scales the training makes activation maps, for its labels (`all`) or to be tracked (`one`)."""
        return "none"

    def check_training(self, optimisation: Optimisation, augmentation: Augmentation) -> None:
        """Compare these knobs with the training's common ones.

        Raises:
            ValueError: they contradict each other.
        """
