"""Knobs of the activation maps: scales, fusion, and the propagation rules, each of which has knobs of its own.

`rules` lists rules by name. The group `cams.<rule>` sets knobs of that rule wherever it is named, and an entry of the
list may set further ones: `adcam:gamma=0,steps=2`. A rule's module is imported only where the rule is named, so that
methods with plain maps are configured without PyTorch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from models.knobs import Count, Knobs, Maybe, Name, Number, Scales, Side, knob
from models.propagation.rule import RuleKnobs
from models.propagation.rules import load_rule, rule_module, rule_names
from pipeline.config.yaml_text import parsed

RULE_TEXT = r"^[a-z0-9_]+(:[a-z0-9_]+=[\w.:-]+(,[a-z0-9_]+=[\w.:-]+)*)?$"
RuleText = Annotated[str, Field(pattern=RULE_TEXT, max_length=100, examples=["adcam:gamma=0"])]
"""A rule's name, and knobs of it: `adcam:gamma=0,steps=2`. It names a folder too."""

READ = {"import": {"source", "folder", "first_id", "validation"}, "none": {"source"}}
"""The knobs that other sources than a network read."""


def _one_word(value: Any) -> Any:
    """A single word is a list of one."""
    return [value] if isinstance(value, str) else value


class CamsKnobs(Knobs):
    """Multi-scale inference of activation maps, or where maps of other programs lie."""

    source: Literal["network", "import", "none"] = knob(
        "network",
        "network (the localizer's), import (maps of other programs, in `folder`), none (there are no maps)",
    )
    folder: Annotated[Name | None, Maybe] = knob(
        None, "import: the folder of the maps, <id>.npy or <id>.npz for each photograph that has a tag"
    )
    first_id: Annotated[int, Field(ge=0, le=1), Number] = knob(
        0, "import: the number of the first class in these files (0 in PSA, IRN, SEAM and MCTformer)"
    )
    rules: Annotated[list[RuleText], BeforeValidator(_one_word), Field(min_length=1)] = knob(
        ["none"], "propagation rules: the first one's maps go on, the others are only scored; adcam:gamma=0 sets knobs"
    )
    long_side: Annotated[Side | None, Maybe] = knob(None, "longer side at scale 1; none: the photograph's own")
    scales: Scales = knob(
        [0.5, 1.0, 1.5, 2.0],
        "scales of the maps that are fused; each with its mirror image",
        "released, IRN and PSA",
    )
    square: bool = knob(False, "true: views are squares, as TransCAM has them")
    fusion: Literal["max", "minmax", "toco"] = knob(
        "max",
        "of the scales: max (each class over its maximum), minmax (each class from its minimum to its maximum, as"
        " TransCAM), toco (the same, with the larger value of both mirror images)",
        "released, IRN and PSA",
    )
    batch: Count = knob(1, "images of equal size per forward pass, each with its mirror image")
    validation: bool = knob(
        False,
        "true: maps of the validation photographs too, from their tags, which evaluate alone reads",
    )
    max_tokens: Count = knob(4096, "larger grids are refused where a rule reads attention")
    rule_knobs: dict[str, dict[str, Any]] = knob({}, "knobs of rules by the rule's name, from the groups `cams.<rule>`")

    @model_validator(mode="before")
    @classmethod
    def _gather_groups(cls, values: Any) -> Any:
        """Groups named after rules become `rule_knobs`."""
        if not isinstance(values, dict):
            return values
        if values.get("rule_knobs", {}) != {}:
            raise ValueError("rule_knobs: knobs of a rule are set in the group `cams.<rule>`")
        names = rule_names()
        groups = {key: value for key, value in values.items() if key in names and value not in (None, {})}
        others = {key: value for key, value in values.items() if key not in names}
        return others | {"rule_knobs": groups}

    @model_serializer(mode="wrap")
    def _spread_groups(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Written as read: one group for each rule whose knobs are set."""
        values: dict[str, Any] = handler(self)
        groups: dict[str, Any] = values.pop("rule_knobs", {})
        return values | groups

    @model_validator(mode="after")
    def _rules_known(self) -> CamsKnobs:
        for name, group in self.rule_knobs.items():
            _rule_knobs(name, group, f"cams.{name}")
        chosen = [self.rule(text) for text in self.rules]
        for number, one in enumerate(chosen):
            if one in chosen[:number]:
                raise ValueError(f"cams.rules: {self.rules[number]!r} is there twice")
        return self

    def rule(self, text: str) -> tuple[str, RuleKnobs]:
        """The rule and the knobs that an entry of `rules` names: `adcam`, or `adcam:gamma=0,steps=1`.

        Knobs that the entry does not set come from the rule's group, then from the rule's own defaults.

        Raises:
            ValueError: no such rule, a knob that it does not read, or a value that it cannot have.
        """
        name, _, changes = text.partition(":")
        pairs = (change.split("=", 1) for change in changes.split(",") if change)
        own = {key: parsed(value) for key, value in pairs}
        where = f"cams.rules: {text!r}" if own else "cams.rules"
        return name, _rule_knobs(name, self.rule_knobs.get(name, {}) | own, where)

    def reads_attention(self, text: str) -> bool:
        """Whether the rule of an entry of `rules` needs a network with attention."""
        return bool(load_rule(self.rule(text)[0]).needs)

    def modules(self) -> list[str]:
        """The modules of the rules that are asked for."""
        return [rule_module(self.rule(text)[0]) for text in self.rules]

    def of_training(self) -> CamsKnobs:
        """The same for the training photographs alone: a training makes no maps of others."""
        return self.model_copy(update={"validation": False})

    def of_validation(self) -> CamsKnobs:
        """The first rule alone: further ones are compared on the training photographs."""
        return self.model_copy(update={"rules": self.rules[:1]})

    def at_one_scale(self) -> CamsKnobs:
        """The first rule alone, at scale 1: for maps that are only tracked."""
        return self.model_copy(update={"scales": [1.0], "rules": self.rules[:1]})

    def told(self) -> dict[str, Any]:
        """What stages that make maps are told: what the source reads, and no rule that is not asked for."""
        if self.source != "network":
            return self.model_dump(mode="json", include=READ[self.source])
        chosen = {self.rule(text)[0] for text in self.rules}
        others = {name for name in self.rule_knobs if name not in chosen}
        own = self.model_dump(mode="json", exclude={"folder", "first_id"})
        return {key: value for key, value in own.items() if key not in others}


def _rule_knobs(name: str, values: dict[str, Any], where: str) -> RuleKnobs:
    """The knobs of a rule, checked.

    Raises:
        ValueError: saying where, what is wrong and what is allowed.
    """
    try:
        knobs: type[RuleKnobs] = load_rule(name).knobs
        for key in values:
            if key not in knobs.model_fields:
                raise ValueError(f"{name} reads {', '.join(knobs.model_fields) or 'no knobs'}, not {key!r}")
        return knobs.model_validate(values)
    except ValidationError as error:
        problems = [
            ": ".join([*(str(key) for key in item["loc"][:1]), item["msg"].removeprefix("Value error, ")])
            for item in error.errors()
        ]
        raise ValueError(f"{where}: {'; '.join(problems)}") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
