"""What a whole reply must follow: a GBNF grammar, a JSON schema, a regular expression or a Lark grammar.

Contract: pure, and no llguidance. A `Constraint` is checked when made, as far as its text alone allows: its size, that
a schema is JSON, and that it holds nothing that llguidance would silently ignore. Other faults are found by
`wsd_local.constraints.compiling` before any model is loaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote

from wsd_local.errors import UsageError
from wsd_local.system.inputs import unique

Kind = Literal["grammar", "json_schema", "regex", "lark"]
KINDS: tuple[Kind, ...] = ("grammar", "json_schema", "regex", "lark")

MOST_BYTES = 2 << 20
"""Longest source."""
_MOST_EXACT, _LARGEST = 1 << 53, 1 << 63
"""llguidance reads numbers as float64, and compares whole ones as int64."""
_SCHEMAS = {
    "additionalProperties",
    "additionalItems",
    "items",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
}
_LISTS = {"allOf", "anyOf", "oneOf", "prefixItems"}
_MAPS = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
_REFUSED = {
    "x-guidance": "it would change what the schema means; leave it out",
    "nullable": 'JSON Schema has no such keyword; write "type": ["string", "null"] or anyOf instead',
}
_NO_TEXT = re.compile(r'"(?:\\.|[^"\\])*"|/(?:\\.|[^/\\\n])+/|(?://|#)[^\n]*')
"""What in a Lark grammar is a string, a regular expression or a comment."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a reply must follow, from its first character to its last.

    `source` is its text; a grammar begins with the rule `root` in GBNF and `start` in Lark.

    Raises:
        UsageError: the source is empty, too long, not text, or demands something that nothing would enforce.
    """

    kind: Kind
    source: str

    def __post_init__(self) -> None:
        try:
            size = len(self.source.encode())
        except UnicodeEncodeError as error:
            raise self.error(f"is not text: half a character at {error.start}") from None
        if not (self.source if self.kind == "regex" else self.source.strip()):
            raise self.error("is empty")
        if size > MOST_BYTES:
            raise self.error(f"is too long: {size:,} bytes, and {MOST_BYTES:,} are the most")
        if "\0" in self.source:
            raise self.error(f"holds a NUL character at {self.source.index(chr(0))}; leave it out")
        if self.kind == "json_schema":
            self._check_schema()
        elif self.kind == "lark":
            self._check_lark()
        elif self.kind == "regex" and (len(self.source) - len(self.source.rstrip("\\"))) % 2:
            raise self.error("ends with a backslash that stands for nothing; leave it out, or write two")

    @property
    def name(self) -> str:
        """The option's name."""
        return self.kind.replace("_", "-")

    def error(self, reason: str) -> UsageError:
        """An error that names the constraint."""
        return UsageError(f"{self.name}: {reason}", about=self.kind)

    def _check_lark(self) -> None:
        bare = _NO_TEXT.sub(" ", self.source)
        if found := re.search(r"\b(max_tokens|temperature)\s*=", bare):
            raise self.error(f"{found[1]} is not supported here; leave it out")
        if "<" in bare:
            raise self.error("tokens in angle brackets are not supported: a constraint is about text; leave them out")

    # -- JSON schemas -----------------------------------------------------------------------------------------

    def _check_schema(self) -> None:
        try:
            schema = json.loads(self.source, parse_constant=self._no_number, object_pairs_hook=unique)
        except RecursionError:
            raise self.error("is nested too deeply") from None
        except ValueError as error:
            raise self.error(f"is not JSON: {error}") from None
        if not isinstance(schema, dict | bool):
            raise self.error("must be an object, true or false")
        for where, part in subschemas(schema, referenced(schema)):
            self._check_part(where, part)

    def _no_number(self, text: str) -> None:
        raise ValueError(f"{text} is no number")

    def _check_part(self, where: str, schema: dict[str, Any]) -> None:
        for keyword, (is_right, right) in _SHAPES.items():
            if keyword in schema and not is_right(schema[keyword]):
                raise self.error(f'"{keyword}"{where} must be {right}')
        for keyword, reason in _REFUSED.items():
            if schema.get(keyword, False) is not False:
                raise self.error(f'"{keyword}"{where} is not supported: {reason}')
        for keyword in ("const", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"):
            for number in _numbers(schema.get(keyword)):
                if not _is_kept(keyword, number):
                    raise self.error(f'"{keyword}"{where} has {number}, which cannot be kept exactly')
        low, high = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        over, under = schema.get("maximum", high), schema.get("minimum", low)
        if _is_near(low, over) or _is_near(high, under):
            raise self.error(f"an excluded whole number as a bound of less than 1{where} is not supported")
        self._check_names(where, schema)

    def _check_names(self, where: str, schema: dict[str, Any]) -> None:
        """Refuse a `minProperties` that the same name, written twice, would seem to satisfy."""
        least, required = schema.get("minProperties", 0), schema.get("required", [])
        if not isinstance(least, int | float) or not isinstance(required, list):
            return
        open_to_others = schema.get("additionalProperties") is not False
        others = {"patternProperties", "allOf", "anyOf", "oneOf", "$ref"} & schema.keys()
        if least > len(required) + 1 and (open_to_others or others):
            raise self.error(
                f'"minProperties": {least}{where} is not supported, as the names are not given; require them'
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and value % 1 == 0


def _is_schema(value: object) -> bool:
    return isinstance(value, dict | bool)


def _is_schemas(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_schema, value))


def _is_named(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_schema, value.values()))


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


_COUNTED = ("Length", "Items", "Properties", "Contains")
COUNTS = frozenset(f"{bound}{counted}" for bound in ("min", "max") for counted in _COUNTED)
"""Keywords whose value is a count."""
_SHAPES: dict[str, tuple[Callable[[object], bool], str]] = {
    **dict.fromkeys(sorted(COUNTS), (_is_count, "a whole number from 0 on")),
    **dict.fromkeys(("minimum", "maximum"), (_is_number, "a number")),
    **dict.fromkeys(
        ("exclusiveMinimum", "exclusiveMaximum"), (lambda value: isinstance(value, int | float), "a number")
    ),
    "multipleOf": (
        lambda value: isinstance(value, int | float) and value is not True and value > 0,
        "a number above 0",
    ),
    **dict.fromkeys(("pattern", "format", "$ref"), (lambda value: isinstance(value, str), "text")),
    "uniqueItems": (lambda value: isinstance(value, bool), "true or false"),
    "enum": (lambda value: isinstance(value, list), "a list"),
    "required": (_is_names, "a list of names"),
    **dict.fromkeys(("properties", "patternProperties"), (_is_named, "an object of schemas")),
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), (_is_schemas, "a list of schemas")),
    "items": (lambda value: _is_schema(value) or _is_schemas(value), "a schema"),
    **dict.fromkeys(("additionalProperties", "additionalItems", "not", "contains"), (_is_schema, "a schema")),
    **dict.fromkeys(("propertyNames", "if", "then", "else"), (_is_schema, "a schema")),
}
"""What the value of a keyword must be, also where llguidance does not read it because it is for another type."""


def _is_kept(keyword: str, number: float) -> bool:
    """Whether llguidance keeps the number exactly, or as a bound with the same effect."""
    if abs(number) < _MOST_EXACT or (abs(number) <= _LARGEST and float(number) == number):
        return True
    return keyword in ("maximum", "exclusiveMaximum") and number >= _LARGEST - 1


def _is_near(excluded: object, other: object) -> bool:
    """Whether a bound lies less than 1 beside an excluded whole number: llguidance would allow that number."""
    if isinstance(excluded, bool) or isinstance(other, bool):
        return False
    if not isinstance(excluded, int | float) or not isinstance(other, int | float):
        return False
    return excluded == int(excluded) and 0 < abs(other - excluded) < 1


def _numbers(value: object) -> Iterator[int | float]:
    """All numbers in a JSON value."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            left += one.values()
        elif isinstance(one, list):
            left += one
        elif isinstance(one, int | float) and not isinstance(one, bool):
            yield one


def referenced(schema: object) -> set[str]:
    """Every name in the path of a reference: an unknown keyword holds a schema only if it is one of them."""
    found: set[str] = set()
    left = [schema]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += value.values()
            if isinstance(way := value.get("$ref"), str):
                names = unquote(way.partition("#")[2]).split("/")
                found |= {name.replace("~1", "/").replace("~0", "~") for name in names}
        elif isinstance(value, list):
            left += value
    return found


def subschemas(schema: object, names: Container[str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each subschema that is an object, with its place; values that are no schema are left to llguidance.

    With `names`, values of unknown keywords count as schemas only under these names.
    """
    left = [("", schema)]
    while left:
        path, part = left.pop()
        if not isinstance(part, dict):
            continue
        yield (f" at #{path}" if path else ""), part
        for keyword, value in part.items():
            if keyword in _MAPS and isinstance(value, dict):
                left += [(f"{path}/{keyword}/{name}", one) for name, one in value.items()]
            elif keyword in _LISTS | {"items"} and isinstance(value, list):
                left += [(f"{path}/{keyword}/{index}", one) for index, one in enumerate(value)]
            elif keyword in _SCHEMAS:
                left.append((f"{path}/{keyword}", value))
            elif keyword not in _KNOWN and (names is None or keyword in names):  # a definition may stand anywhere
                several = enumerate(value) if isinstance(value, list) else [("", value)]
                left += [(f"{path}/{keyword}" + (f"/{index}" if index != "" else ""), one) for index, one in several]


def unknown_keywords(constraint: Constraint) -> list[str]:
    """Keywords of a schema that no version of JSON Schema has: they constrain nothing."""
    if constraint.kind != "json_schema":
        return []
    parts = subschemas(json.loads(constraint.source))
    found = {word for _, part in parts for word, value in part.items() if not isinstance(value, dict)}
    return sorted(word for word in found - _KNOWN if not word.startswith("x-"))


_WORDS = """
$id id $schema $anchor $dynamicAnchor $ref $dynamicRef $recursiveRef $recursiveAnchor $vocabulary $comment $defs
definitions type enum const multipleOf maximum exclusiveMaximum minimum exclusiveMinimum maxLength minLength pattern
maxItems minItems uniqueItems maxContains minContains contains maxProperties minProperties required dependentRequired
dependentSchemas dependencies prefixItems items additionalItems unevaluatedItems properties patternProperties
additionalProperties unevaluatedProperties propertyNames allOf anyOf oneOf not if then else format contentEncoding
contentMediaType contentSchema title description default deprecated readOnly writeOnly examples example nullable
discriminator externalDocs xml
"""
_KNOWN = frozenset(_WORDS.split())
