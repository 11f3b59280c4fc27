"""Knobs in words: what is wrong with a value, and what every knob means."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from models.knobs import Knobs
from models.propagation.rules import rule_names
from pipeline.config.params import Params
from pipeline.maps.background_rules import RULES

ALLOWED = {
    "bg_thresh": "a number from 0 to 1, none (no threshold: background is 1 - the strongest class), "
    f"a rule that reads no mask ({', '.join(RULES)}), or preset",
    "precision": "a group of two knobs, precision.training and precision.inference",
}
WORDS = {"array": "list", "boolean": "true, false", "integer": "whole number", "null": "none", "number": "number"}


class KnobRow(NamedTuple):
    """One knob: its dotted name, its published default, what is allowed, its meaning, where the default comes from."""

    name: str
    default: str
    allowed: str
    meaning: str
    source: str


def knob_rows(group: type[Knobs], prefix: str = "", given: Knobs | None = None) -> Iterator[KnobRow]:
    """Every knob of a group and of the groups inside it, as declared.

    Args:
        group: the class.
        prefix: its dotted name.
        given: the group's default, where its user gives it one; knobs have their defaults from there.
    """
    schema = group.model_json_schema(by_alias=False, mode="validation")
    schemas, definitions = schema["properties"], schema.get("$defs", {})
    for name, field in group.model_fields.items():
        dotted = f"{prefix}.{name}" if prefix else name
        default = field.default if given is None else getattr(given, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Knobs):
            yield from knob_rows(field.annotation, dotted, default if isinstance(default, Knobs) else None)
        else:
            extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
            default = "-" if default is PydanticUndefined else value_text(default)
            allowed = _allowed(schemas[name], definitions)
            yield KnobRow(dotted, default, allowed, field.description or "", str(extra.get("source", "")))


def value_text(value: Any) -> str:
    """A value as params.yaml writes it, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {value_text(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(value_text, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)


def _allowed(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """What a JSON schema allows, in words."""
    if "$ref" in schema:
        return _allowed(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
    if "anyOf" in schema:
        return " or ".join(_allowed(part, definitions) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        return f"list of {_allowed(schema.get('items', {}), definitions)}{_bounds(schema, 'Items')}"
    if schema.get("type") == "string":
        return f"text such as {schema['examples'][0]}" if "examples" in schema else "text"
    return WORDS.get(schema.get("type", ""), "anything") + _bounds(schema, "imum")


def _bounds(schema: dict[str, Any], ending: str) -> str:
    """` >= 0, < 1`: the bounds of a number, or ` (2 to 2)` of how many there are."""
    if ending == "Items":
        least, most = schema.get("minItems"), schema.get("maxItems")
        if least is None and most is None:
            return ""
        return f" ({least or 0} or more)" if most is None else f" ({least or 0} to {most})"
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    found = [f"{sign} {schema[key]:.10g}" for key, sign in signs.items() if key in schema]
    return f" {', '.join(found)}" if found else ""


# -------------------------------------------------------------------------------------------------------------- errors


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


def explain(error: ValidationError, raw: dict[str, Any]) -> list[str]:
    """One line for each wrong knob: key, value, type, what is allowed."""
    reasons: dict[str, tuple[Any, list[str]]] = {}
    for item in error.errors():
        key, value = _at(raw, item["loc"])
        reason = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            reason = f"no such knob; {nearest(key)}"
        elif item["type"] == "missing":
            reason = "this knob has no value: neither the preset nor its declaration gives one; set it"
        reasons.setdefault(key, (value, []))[1].append(reason)
    lines = []
    for key, (value, why) in reasons.items():
        allowed = ALLOWED.get(key) or "; or ".join(dict.fromkeys(why))
        shown = "" if isinstance(value, dict) or value is None else f" = {value!r} ({type(value).__name__})"
        lines.append(f"{key}{shown}: {allowed}" if key else allowed)
    return lines


def nearest(key: str) -> str:
    """Advice for a name that does not exist: the nearest ones that do."""
    names = [*(row.name for row in knob_rows(Params)), *(f"cams.{rule}" for rule in rule_names())]
    leaf = key.rsplit(".", 1)[-1]
    same_leaf = [name for name in names if name.rsplit(".", 1)[-1] == leaf]
    close = list(dict.fromkeys([*same_leaf[:3], *get_close_matches(key, names, n=3, cutoff=0.6)]))[:4]
    return f"nearest are {', '.join(close)}" if close else "`make knobs` lists all"
