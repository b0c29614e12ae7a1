"""JSON schemas written so that llguidance takes them.

Contract: pure; text in, text out. Every text that follows the result follows the source. Keywords that constrain
nothing are left out, because llguidance refuses some of them by name; keywords that it knows by another name get that
name; patterns are written in its dialect.
"""

from __future__ import annotations

import json
import re
from typing import Any

from wsd_local.constraints.constraint import COUNTS, referenced, subschemas
from wsd_local.constraints.patterns import quotable
from wsd_local.errors import UsageError


def portable_schema(source: str) -> str:
    """The schema as an object, with changes that leave every text that follows it a text that follows the source.

    What constrains nothing is left out, as llguidance would refuse some of it, and patterns are written in its dialect.
    oneOf of different constants is anyOf. Where no schemas are combined, an object that names properties has these
    alone, unless the schema says something about others: models that may add names add them without end.
    """
    schema = json.loads(source)
    if isinstance(schema, bool):
        if not schema:
            raise UsageError("there is no text that follows it")
        return "{}"
    parts = [part for _, part in subschemas(schema, referenced(schema))]
    combined = any("allOf" in part or (_COMBINING & part.keys() and _OF_OBJECTS & part.keys()) for part in parts)
    for part in parts:
        _plain(part)
        if not combined:
            _close(part)
        if "anyOf" not in part and _are_different_constants(part.get("oneOf")):
            part["anyOf"] = part.pop("oneOf")
    return json.dumps(schema)


def _plain(part: dict[str, Any]) -> None:
    """Leave out keywords that hold for everything, write whole numbers as such, patterns in llguidance's dialect."""
    _plain_dialect(part)
    if part.get("format") in _ANY_TEXT:
        del part["format"]
    for keyword in _NOTHING_ALONE.keys() & part.keys():
        if not _NOTHING_ALONE[keyword] & part.keys():
            del part[keyword]
    for keyword, values in _NOTHING.items():
        if keyword in part and any(part[keyword] is value or part[keyword] == value for value in values):
            del part[keyword]
    for keyword in COUNTS & part.keys():
        part[keyword] = int(part[keyword])
    _name_others(part)
    if isinstance(part.get("pattern"), str):
        part["pattern"] = quotable(part["pattern"])
    if isinstance(part.get("patternProperties"), dict):
        part["patternProperties"] = {quotable(name): one for name, one in part["patternProperties"].items()}


def _plain_dialect(part: dict[str, Any]) -> None:
    """Write JSON Schema's own dialects as llguidance knows them."""
    if not isinstance(part.get("$schema"), str):
        return
    if found := _DIALECT.fullmatch(part["$schema"]):
        part["$schema"] = f"http://json-schema.org/{found[1]}schema#"
        if not found[1]:  # the newest, which is what holds without a name
            del part["$schema"]


def _name_others(part: dict[str, Any]) -> None:
    """Express other keywords about unnamed parts by `additionalProperties`, `items` and `patternProperties`."""
    if not _COMBINING_ALL & part.keys():
        for keyword, plain in (("unevaluatedProperties", "additionalProperties"), ("unevaluatedItems", "items")):
            if keyword in part and not isinstance(part.get(plain), list):
                part.setdefault(plain, part[keyword])
                del part[keyword]
    names = part.get("propertyNames")
    if not isinstance(names, dict) or {"properties", "patternProperties"} & part.keys():
        return
    kinds = names.keys() - {"type", "title", "description"}
    if names.get("type", "string") != "string" or len(kinds) != 1 or not kinds <= {"enum", "const", "pattern"}:
        return
    listed = names["enum"] if "enum" in names else [names.get("const")]
    if "pattern" not in names and not (listed and all(isinstance(name, str) for name in listed)):
        return
    pattern = names["pattern"] if "pattern" in names else f"^(?:{'|'.join(map(re.escape, listed))})$"
    del part["propertyNames"]
    part["patternProperties"] = {pattern: part.get("additionalProperties", True)}
    part["additionalProperties"] = False


_DIALECT = re.compile(r"https?://json-schema\.org/(draft-0[467]/|)schema#?")
_ANY_TEXT = ("password", "binary", "path")
"""Formats that every text has."""
_NOTHING: dict[str, list[Any]] = {
    "uniqueItems": [False],
    "propertyNames": [True, {}, {"type": "string"}],
    "unevaluatedItems": [True, {}],
    "unevaluatedProperties": [True, {}],
    "dependentRequired": [{}],
    "dependentSchemas": [{}],
    "dependencies": [{}],
}
"""Values that allow everything."""
_NOTHING_ALONE = {
    "minContains": {"contains"},
    "maxContains": {"contains"},
    "then": {"if"},
    "else": {"if"},
    "if": {"then", "else"},
}
"""Keywords that mean nothing without one of the others."""
_COMBINING = {"anyOf", "oneOf", "$ref"}
_COMBINING_ALL = {*_COMBINING, "allOf", "if", "dependentSchemas", "dependencies", "contains", "$dynamicRef"}
_OF_OBJECTS = {"properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties"}


def _close(part: dict[str, Any]) -> None:
    named, required = part.get("properties"), part.get("required", [])
    if not isinstance(named, dict) or not named or {"additionalProperties", "patternProperties"} & part.keys():
        return
    least = part.get("minProperties", 0)
    if isinstance(required, list) and all(name in named for name in required) and least in range(len(named) + 1):
        part["additionalProperties"] = False


def _are_different_constants(options: object) -> bool:
    if not isinstance(options, list):
        return False
    values = [option.get("const") if isinstance(option, dict) else None for option in options]
    return all(isinstance(value, str | int | float) for value in values) and len(set(values)) == len(values)
