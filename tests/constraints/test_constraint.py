"""Constraints: what follows them to the end, what is refused by name, and what a reference of its own decides."""

from __future__ import annotations

import contextlib
import io
import json
import math
import random
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from command_line import wsd
from data_sets import VOCABULARIES, fixture_prompts, shared
from exactness import PLAIN, exact_pair
from free_proposals import eager
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st
from llguidance import LLMatcher
from llguidance.llamacpp import lltokenizer_from_vocab

from wsd_local.cli.output import Printer
from wsd_local.constraints.compiling import compiled, grammar_of
from wsd_local.constraints.constraint import Constraint, Kind, unknown_keywords
from wsd_local.constraints.matching import Matcher, Matching
from wsd_local.core.contexts import Question
from wsd_local.errors import CancelledError, DeadEndError, UsageError, WsdError
from wsd_local.events import Notice, Text
from wsd_local.llama import Model, Sequences
from wsd_local.runtime.fleet import Failed, Fleet
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Finished
from wsd_local.settings import LoadSettings

pytestmark = pytest.mark.filterwarnings("ignore:llama_token_get_attr:DeprecationWarning")
"""llguidance's own reading of a vocabulary, which the reference uses, asks by an old name."""

PROMPTS = [record["prompt"] for record in fixture_prompts() if record["prompt"].strip()]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
}


@pytest.fixture(scope="module")
def pair(kin: tuple[Path, Path]) -> Iterator[Pair]:
    with exact_pair(kin) as pair:
        yield pair


@pytest.fixture(scope="module")
def demo(demo_q8: tuple[Path, Path]) -> Iterator[Pair]:
    with Pair(draft=demo_q8[0], base=demo_q8[1], loading=LoadSettings(threads=1)) as pair:
        yield pair


@pytest.fixture(scope="module")
def model(demo_q8: tuple[Path, Path]) -> Iterator[Model]:
    with Model(demo_q8[1], vocab_only=True) as model:
        yield model


def begun(model: Model, kind: Kind, source: str) -> Matcher:
    return matching(model).matcher(tried(kind, source))


@cache
def matching(model: Model) -> Matching:
    return Matching(model)


@cache
def tried(kind: Kind, source: str) -> str:
    return compiled(Constraint(kind, source))


def allows(model: Model, kind: Kind, source: str, text: str) -> bool:
    """Whether a whole text follows a constraint."""
    matcher = begun(model, kind, source)
    return matcher.feed(text.encode()) and matcher.may_end


# -- what a text may be ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string"}, ['"a"', r'"\n\"\\"', '"é😀"'], ['"\n"', '"', '"a"b', "a", r'"\x"']),
        ({"const": "C:\\temp\\new"}, [r'"C:\\temp\\new"'], [r'"C:\temp\new"', r'"C:\\temp"']),
        ({"const": "naïve 😀 \u0001"}, ['"naïve 😀 \\u0001"'], ['"naive 😀"']),
        ({"type": ["string"], "enum": ["red", "green"]}, ['"red"'], ['"blue"', "red"]),
        ({"type": "integer", "minimum": 0, "maximum": 5}, ["0", "5"], ["6", "-1", "07", "1.5"]),
        ({"type": "integer", "maximum": 2**63 - 1, "minimum": -(2**62)}, [f"{2**63 - 1}"], [f"{2**63}"]),
        ({"type": "array", "items": {}}, ["[]", '[1,"a",null]'], ["{}", "[1,]"]),
        ({"type": "array", "maxItems": 20000, "minItems": 2}, ["[1,2]"], ["[1]"]),
        ({"title": "X"}, ["1", "null", '{"a":[true]}'], ["a", ""]),
        ({"pattern": r"^\d{3}-\d{4}$", "type": "string"}, ['"123-4567"'], ['"1234567"']),
        ({"pattern": "^ab|cd$", "type": "string"}, ['"abx"', '"xcd"', '"ab"'], ['"xabx"', '"abx']),
        ({"pattern": "(?:a|b)+$", "type": "string"}, ['"xab"'], ['"c"']),
        ({"oneOf": [{"const": 1}, {"const": 2, "title": "two"}]}, ["1", "2"], ["3"]),
        ({"type": "object", "properties": {"": {"const": 1}}, "required": [""]}, ['{"":1}'], ["{}", '{"":2}']),
        ({"type": "object", "properties": {"a": {"const": 1}}}, ['{"a":1}', "{}"], ['{"\\u0061":2}', '{"b":1}']),
        ({"properties": {"a": {"const": 1}}, "additionalProperties": {"const": 2}, "type": "object"},
         ['{"a":1,"b":2}', '{"b":2}'], ['{"a":1,"\\u0061":2}', '{"b":3}', '{"a":2}']),
        ({"type": "object", "required": ["x"]}, ['{"x":1}', '{"x":[]}'], ["{}", '{"y":1}']),
        ({"type": "object", "patternProperties": {"^n": {"type": "null"}}, "additionalProperties": False},
         ['{"no":null}', "{}"], ['{"no":1}', '{"x":null}']),
        ({"allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}], "properties": {"b": {"const": 2}},
          "required": ["b"], "type": "object"}, ['{"a":1,"b":2}'], ['{"a":1}', '{"b":2}']),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": 1}}}, ["1"], ["2"]),
        ({"type": "object", "properties": {"n": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["n"]},
         ['{"n":{"n":null}}', '{"n":null}'], ["{}", '{"n":1}']),
        ({"properties": {"a": {"$ref": "#/$defs/m/kind"}, "b": {"$ref": "#/$defs/n/kind"}}, "required": ["a", "b"],
          "type": "object", "$defs": {"m": {"kind": {"const": "em"}}, "n": {"kind": {"const": "en"}}}},
         ['{"a":"em","b":"en"}'], ['{"a":"em","b":"em"}']),
        ({"properties": {"x": {"$ref": "#/$defs/space"}}, "required": ["x"], "type": "object",
          "$defs": {"space": {"enum": ["open", "closed"]}}}, ['{"x":"open"}'], ['{"x": }']),
        ({"pattern": '^[^"]+$', "type": "string"}, ['"a\\\\b"', '"é\\n"'], [r'"\""', r'"a\"b"', '""']),
        ({"pattern": r"^[^\\/]*$", "type": "string"}, [r'"\""', '"a:b"'], [r'"\\"', r'"a\\b"', '"a/b"']),
        ({"pattern": "^[a[&&b]+$", "type": "string"}, ['"a[&b"'], ['"c"', '""']),
        ({"pattern": r"^[]\]a-]+$", "type": "string"}, ['"a]-"'], ['"b"', r'"\\"']),
        ({"type": "object", "patternProperties": {'^[^"]$': {"const": 1}}, "additionalProperties": False},
         ['{"a":1}'], [r'{"\"":1}']),
        ({"type": "array", "items": {"type": "string", "maxLength": 1.0}, "uniqueItems": False, "minContains": 1},
         ['["a","a"]'], ['["ab"]']),
        ({"type": "object", "properties": {"a": {"const": 1}}, "propertyNames": {"type": "string"}, "then": False,
          "unevaluatedProperties": True, "dependentRequired": {}}, ['{"a":1}'], ['{"a":2}']),
        ({"type": "object", "propertyNames": {"enum": ["a b", "e.*"]}, "additionalProperties": {"const": 1}},
         ['{"a b":1}', '{"e.*":1}', "{}"], ['{"exx":1}', '{"e.*":2}']),
        ({"type": "object", "propertyNames": {"pattern": "^[a-z]$"}, "required": ["b"]},
         ['{"b":1}'], ["{}", '{"b":1,"B":1}']),
        ({"type": "object", "properties": {"a": {"const": 1}}, "unevaluatedProperties": {"const": 2}},
         ['{"a":1,"b":2}'], ['{"b":1}']),
        ({"type": "array", "prefixItems": [{"const": 1}], "unevaluatedItems": False}, ["[1]", "[]"], ["[1,1]"]),
        ({"type": "string", "format": "password", "$schema": "https://json-schema.org/schema#"}, ['"x"'], ["1"]),
        ({"const": 1, "$schema": "https://json-schema.org/draft-07/schema"}, ["1"], ["2"]),
        ({"type": "string", "ui": {"required": True, "maxLength": "long"}}, ['"x"'], ["1"]),
        ({"$ref": "#/own/0", "own": [{"type": "string", "pattern": '^[^"]$'}]}, ['"x"'], [r'"\""']),
        (True, ["1", "[]"], ["x"]),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict | bool) else "",
)  # fmt: skip
def test_texts_of_schemas(model: Model, schema: Any, good: list[str], bad: list[str]) -> None:
    source = json.dumps(schema)
    for text in good:
        jsonschema.validate(json.loads(text), schema)
        assert allows(model, "json_schema", source, text), text
    assert [text for text in bad if allows(model, "json_schema", source, text)] == []


def test_a_class_of_characters_in_a_pattern_excludes_quotes(model: Model) -> None:
    source = json.dumps({"type": "string", "pattern": r"^\P{P}+$"})
    assert allows(model, "json_schema", source, '"a b"')
    assert [text for text in (r'"\""', r'"a\\"', '"."') if allows(model, "json_schema", source, text)] == []


@pytest.mark.parametrize(
    ("kind", "source", "good", "bad"),
    [
        ("grammar", 'root ::= "\\u00e9\\x41" [\\u0430-\\u044f]+ "\\U0001F600"', ["éAаб😀"], ["éA😀", "éAб"]),
        ("grammar", 'root ::= ([0-9]+)? ("ab"{2}){2} .', ["12abababab\n", "abababab."], ["abab.", "ababababab"]),
        ("grammar", "root ::= [a&&b~~c[-]+ [^\\n\\]]", ["&~[-abcx", "a"[:1] + "-\t"], ["d", "a\n", "a]"]),
        ("grammar", 'root ::= A a-b a_b start # "\nA ::="1"\na-b ::= "2"\na_b ::= "3"\nstart ::= "4"', ["1234"], ["1"]),
        ("grammar", 'root ::=\r\n  "a" (\r\n  "b" | "/" )\r\n', ["ab", "a/"], ["a"]),
        ("grammar", 'root ::= "\\"" ([^"\\\\\\x00-\\x1F] | "\\\\" ["\\\\n])* "\\""', ['"a\\n\\""'], ['"a\n"', '"\\x"']),
        ("regex", r"^[a-z]+(?:\.[a-z]+)*$", ["a.b", "abc"], ["a.", "A"]),
        ("regex", "ja|nein", ["ja"], ["jan"]),
        ("regex", " ", [" "], ["", "a"]),
        ("lark", r'start: "a" %json {"type": "string", "pattern": "^[^\"]$"} "b"',
         ['a"x"b'], [r'a"\""b']),
        ("lark", 'start: INT ("," INT)*\nINT: /[0-9]+/', ["1,22"], ["1,", ""]),
    ],
)  # fmt: skip
def test_texts_of_grammars(model: Model, kind: Kind, source: str, good: list[str], bad: list[str]) -> None:
    assert [text for text in good if not allows(model, kind, source, text)] == []
    assert [text for text in bad if allows(model, kind, source, text)] == []


REFUSED: list[tuple[Kind, str, str]] = [
    ("grammar", 'root ::= "a"{5,2}', "range end"),
    ("grammar", "root ::= " + "(" * 60_000 + '"a"' + ")" * 60_000, "too deeply"),
    ("grammar", 'root ::= "a" nothing', "nothing"),
    ("grammar", "root ::= [a-", "cannot be used"),
    ("grammar", 'other ::= "a"', "root"),
    ("grammar", "root ::= root", "no text"),
    ("grammar", 'root ::= "a\\q"', "escape"),
    ("grammar", 'root ::= "\\ud800"', "no character"),
    ("grammar", 'root ::= "a\0b"', "NUL"),
    ("grammar", " \n", "empty"),
    ("grammar", 'root ::= <think> "a"', "think"),
    ("grammar", 'root ::= a\na ::= "x"\na ::= "y"', "twice"),
    ("lark", "start: a0\n" + "\n".join(f"a{i}: a{i + 1}" for i in range(20_000)) + '\na20000: "x"', "too"),
    ("lark", "start: " + "(" * 60_000 + '"a"' + ")" * 60_000, "nested"),
    ("lark", "start: A0\n" + "\n".join(f"A{i}: A{i + 1} A{i + 1}" for i in range(40)) + '\nA40: "x"', "too big"),
    ("lark", "start: x[max_tokens=3]\nx: /a+/", "max_tokens"),
    ("lark", "start: <|im_end|>", "angle brackets"),
    ("lark", 'start: %json {"not": {}}', "not"),
    ("lark", 'start: "a" %json {"type": "string", "nullable": true}', "nullable"),
    ("lark", 'start: %json {"type": "string"', "json"),
    ("regex", "(?=a)b", "look-ahead"),
    ("regex", "a{5,2}", "repetition"),
    ("regex", "((a{1000}){1000}){1000}", "too complex"),
    ("regex", "(" * 60_000 + "a" + ")" * 60_000, "regex"),
    ("regex", "", "empty"),
    ("regex", "a\\", "backslash"),
    ("json_schema", '{"not": {"type": "string"}}', '"not"'),
    ("json_schema", '{"type": "elephant"}', "elephant"),
    ("json_schema", '{"$ref": "https://localhost/x.json"}', "localhost"),
    ("json_schema", '{"type": "array", "uniqueItems": true}', "uniqueItems"),
    ("json_schema", '{"properties": {"a": {"type": "string", "required": true}}}', '"required" at #/properties/a'),
    ("json_schema", '{"type": "string", "minimum": "5"}', "a number"),
    ("json_schema", '{"type": "integer", "maxLength": -1}', "whole number"),
    ("json_schema", '{"type": "object", "items": "string"}', "a schema"),
    ("json_schema", '{"type": "array", "properties": {"a": "string"}}', "schemas"),
    ("json_schema", '{"type": "string", "nullable": true}', "nullable"),
    ("json_schema", '{"items": {"x-guidance": {"lenient": true}, "not": {}}}', "x-guidance"),
    ("json_schema", '{"type": "object", "minProperties": 3}', "minProperties"),
    ("json_schema", '{"properties": {"a": {"const": 9007199254740993}}}', "#/properties/a"),
    ("json_schema", '{"exclusiveMinimum": 0, "maximum": 0.5}', "bound"),
    ("json_schema", '{"type": "integer", "minimum": 5, "maximum": 3}', "greater"),
    ("json_schema", "false", "no text"),
    ("json_schema", "[1]", "object"),
    ("json_schema", "{", "is not JSON"),
    ("json_schema", '{"const": NaN}', "NaN"),
    ("json_schema", '{"properties": {"a": {"enum": [1], "enum": [2]}}}', "'enum' is there twice"),
    ("json_schema", '{"const": "\\ud800"}', "escape"),
    ("json_schema", '{"items": ' * 60_000 + "true" + "}" * 60_000, "too deeply"),
    ("json_schema", '{"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}', "no text"),
    ("json_schema", '{"type": "string", "pattern": "(?<=a)b"}', "look-behind"),
    ("json_schema", '{"type": "string", "format": "colour"}', "colour"),
    ("json_schema", '{"enum": [' + '"' + "x" * (3 << 20) + '"]}', "too long"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "source", "said"), REFUSED, ids=lambda value: value[:40])
def test_what_cannot_be_followed_is_one_line(kind: Kind, source: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        compiled(Constraint(kind, source))
    told = str(caught.value)
    assert said in told and "\n" not in told and len(told) < 500
    assert told.startswith(kind.replace("_", "-"))


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("json_schema", '{"type":"string","maxLength":20000}'),
        ("json_schema", '{"type":"array","items":{"type":"integer"},"maxItems":1000000000}'),
        ("json_schema", '{"type":"string","pattern":"(a{1000}){1000}"}'),
        ("json_schema", json.dumps({"enum": [f"item number {i}" for i in range(50_000)]})),
        ("json_schema", json.dumps({"properties": {f"p{i}": {"type": "integer"} for i in range(1000)}})),
        ("regex", "[a-z]{1,100000}"),
        ("regex", "(a|b)*a(a|b){20}"),
        ("grammar", 'root ::= "a" | root root root'),
        ("grammar", "root ::= r0\n" + "\n".join(f"r{i} ::= r{i + 1}" for i in range(500)) + '\nr500 ::= "x"'),
    ],
    ids=lambda value: value[:40],
)
def test_what_is_only_large_is_followed(model: Model, kind: Kind, source: str) -> None:
    assert len(begun(model, kind, source).allowed)


def test_a_stop_ends_the_compiler() -> None:
    with pytest.raises(CancelledError):
        compiled(Constraint("regex", "a" * 1_000_000), lambda: False)


def test_keywords_that_nobody_knows_are_named() -> None:
    schema = {
        "type": "object",
        "x-own": 1,
        "properties": {"kind": {"minimun": 3, "description": "d", "default": {"a": 1}}},
        "$defs": {"m": {"inner": {"maxLen": 5}}},
    }
    assert unknown_keywords(Constraint("json_schema", json.dumps(schema))) == ["maxLen", "minimun"]


def test_a_long_forced_text_costs_no_more_than_a_short_one(model: Model) -> None:
    """What is tokenised again with each token does not grow with the text."""
    text = "né😀 hello there, " * 5000
    matcher = begun(model, "lark", f"start: {json.dumps(text, ensure_ascii=False)}")
    written = b""
    for _ in range(40):
        forced = matcher.forced()
        assert sum(len(model.piece(token)) for token in forced) < 300
        token = int(matcher.allowed[-1])
        written += model.piece(token)
        matcher.accept(token)
    assert text.encode().startswith(written)


# -- random texts ------------------------------------------------------------------------------------------------


def written(model: Model, matcher: Matcher, chance: Any, most: int = 150) -> str | None:
    """A random text, None if it did not end. Closing is preferred, so that it does."""
    text = b""
    for step in range(most):
        if matcher.over:
            return text.decode()
        allowed = matcher.allowed.tolist()
        closing = [t for t in allowed if model.is_eog(t) or model.piece(t)[:1] in b'"}],:'] if step > 20 else []
        token = chance.choice(closing or allowed)
        if model.is_eog(token):
            return text.decode()
        text += model.piece(token)
        matcher.accept(token)
    return None


KEYWORDS = {
    "minLength": st.integers(0, 3),
    "maxLength": st.integers(0, 5),
    "minimum": st.integers(-20, 20) | st.sampled_from([0.5, -1.5, 2.25]),
    "maximum": st.integers(-20, 20) | st.sampled_from([0.5, -1.5, 2.25]),
    "exclusiveMinimum": st.integers(-20, 20) | st.sampled_from([0.5, -1.5, 2.25]),
    "exclusiveMaximum": st.integers(-20, 20) | st.sampled_from([0.5, -1.5, 2.25]),
    "multipleOf": st.sampled_from([1, 2, 3, 7, 0.5]),
    "minItems": st.integers(0, 2),
    "maxItems": st.integers(0, 3),
    "pattern": st.sampled_from(["^a", "b$", r"^\d+$", "[^a]", '^[^"]+$', r"^[^\\\s]", "^(a|bc)*$", r"\\", '"']),
    "enum": st.lists(
        st.none()
        | st.booleans()
        | st.integers(-99, 99)
        | st.text(max_size=3)
        | st.lists(st.integers(0, 9), max_size=2),
        min_size=1,
        max_size=4,
    ),
    "const": st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=4) | st.just({"a": [1, "x"]}),
    "required": st.lists(st.sampled_from(["a", "b", "c"]), unique=True),
    "minProperties": st.integers(0, 2),
    "maxProperties": st.integers(0, 3),
}
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "null", "array", "object"])


def _wider(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(["a", "b", 'q"', "é", ""])
    return st.fixed_dictionaries(
        {},
        optional={
            **KEYWORDS,
            "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "properties": st.dictionaries(names, inner, max_size=3),
            "additionalProperties": inner,
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$"]), inner, max_size=1),
            "anyOf": st.lists(inner, min_size=1, max_size=3),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "propertyNames": st.sampled_from(
                [{"enum": ["a", "b"]}, {"enum": []}, {"pattern": "^a"}, {"type": "string"}]
            ),
            "unevaluatedProperties": inner,
            "unevaluatedItems": inner,
            "$ref": st.just("#/$defs/d"),
            "$defs": st.just({"d": {"type": ["integer", "object"], "maximum": 9}}),
        },
    )


LEAVES = st.booleans() | st.fixed_dictionaries({"type": TYPES}, optional=KEYWORDS)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.recursive(LEAVES, _wider, max_leaves=6), st.randoms(use_true_random=False))
def test_random_texts_of_random_schemas_validate(model: Model, schema: Any, chance: Any) -> None:
    if isinstance(schema, dict) and "$ref" in json.dumps(schema):
        schema = {**schema, "$defs": {"d": {"type": ["integer", "object"], "maximum": 9}}}
    source = json.dumps(schema)
    try:
        Constraint("json_schema", source)
        matcher = matching(model).matcher(grammar_of("json_schema", source))
    except UsageError:
        reject()
    texts: list[str | None] = []
    for _ in range(3):
        with contextlib.suppress(DeadEndError):
            texts.append(written(model, matcher.copy(), chance))
    assume(any(texts))
    for text in filter(None, texts):
        jsonschema.Draft202012Validator(schema).validate(json.loads(text))
        again = matcher.copy()
        assert again.feed(text.encode()) and again.may_end


VALUES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (
        {"type": "array", "items": {"type": ["integer", "string", "null"]}, "maxItems": 3},
        st.lists(st.integers() | st.text() | st.none(), max_size=3),
    ),
    ({"type": "string", "maxLength": 5, "minLength": 1}, st.text(min_size=1, max_size=5)),
    ({"type": "integer", "minimum": -100, "maximum": 5, "multipleOf": 5}, st.integers(-20, 1).map(lambda n: 5 * n)),
    (PERSON, st.fixed_dictionaries({"name": st.text(max_size=8), "age": st.integers(0, 99)})),
    ({"type": "number"}, st.integers() | st.decimals(-999, 999, places=3).map(float)),
]


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(VALUES), st.data())
def test_values_that_validate_can_be_written(model: Model, kind: tuple[Any, Any], data: st.DataObject) -> None:
    schema, values = kind
    value = data.draw(values)
    if isinstance(value, dict):
        value = {name: value[name] for name in schema["properties"]}
    text = json.dumps(value, ensure_ascii=False)
    assume("\\u" not in text and "\x7f" not in text)  # of these, only what the schema itself names
    assert allows(model, "json_schema", json.dumps(schema), text)


@pytest.mark.parametrize("name", VOCABULARIES)
def test_real_vocabularies_write_every_text(name: str) -> None:
    path = shared("vocabs") / f"ggml-vocab-{name}.gguf"
    chance = random.Random(0)
    with Model(path, vocab_only=True) as model:
        for text in (
            "hello world 123",
            'ge": 5 naïve 😀',
            " two  spaces\n\nand lines",
            "x",
            "日本語",
            "\u2028\U0010fffd",
        ):
            matcher = matching(model).matcher(grammar_of("lark", f"start: {json.dumps(text, ensure_ascii=False)}"))
            written = b""
            while not matcher.over:
                forced = matcher.forced()
                assert matcher.valid(forced) == len(forced)
                assert text.encode()[len(written) :].startswith(b"".join(map(model.piece, forced)))
                token = chance.choice(matcher.allowed.tolist())
                written += model.piece(token)
                matcher.accept(token)
            assert written.decode() == text


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=6), st.binary(max_size=6), st.sampled_from(["[^a]{0,9}", "(?:é|😀|b)*"]))
def test_bytes_can_be_fed_in_any_pieces(model: Model, left: bytes, right: bytes, regex: str) -> None:
    whole, parts = begun(model, "regex", regex), begun(model, "regex", regex)
    together = whole.feed(left + right)
    assert (parts.feed(left) and parts.feed(right)) == together
    if together:
        assert parts.may_end == whole.may_end
        assert parts.allowed.tolist() == whole.allowed.tolist()


# -- whole replies -----------------------------------------------------------------------------------------------

MODES: list[dict[str, Any]] = [
    {"mode": "wsd"},
    {"mode": "wsd", "threshold": 0.0, "window": 2},
    {"mode": "wsd", "threshold": 2.0},
    {"mode": "base"},
    {"mode": "draft"},
    {"mode": "fixed:3"},
    {"mode": "urial", "urial": "Answer:"},
    {"temperature": 1.0, "draft_temperature": 1.2, "seed": 3, "top_p": 0.9, "threshold": 0.3},
    {"repeat_penalty": 1.4, "draft_repeat_penalty": 1.3, "frequency_penalty": 0.3},
    {"threshold": 0.3, "check_chunk": 1},
]


@pytest.mark.parametrize("asked", MODES, ids=lambda asked: " ".join(f"{k}={v}" for k, v in asked.items())[:50])
def test_a_reply_is_json_that_validates(demo: Pair, pair: Pair, asked: dict[str, Any]) -> None:
    for one in (demo, pair):
        for prompt in PROMPTS[:3]:
            run = one.start(prompt, json_schema=json.dumps(PERSON), max_tokens=400, **asked)
            events = list(run.events())
            assert "".join(event.text for event in events if isinstance(event, Text)) == run.reply.text
            assert not [event for event in events if isinstance(event, Notice)]
            jsonschema.validate(json.loads(run.reply.text), PERSON)
            assert run.reply.finish_reason == "stop"
            assert run.reply.as_dict()["constraint"] == {"kind": "json_schema", "complete": True}


def test_a_whole_draft_ends_the_reply_and_nothing_more_is_evaluated(demo: Pair) -> None:
    reply = demo.reply(PROMPTS[0], regex="exactly this text", threshold=2.0)
    assert (reply.text, reply.finish_reason, reply.switch.reason) == ("exactly this text", "stop", "draft_end")
    assert reply.base.tokens == 0
    assert reply.timings.draft_evaluated_tokens <= reply.timings.draft_prompt_tokens + reply.draft.drafted_tokens
    alone = demo.reply(PROMPTS[1], regex="exactly this text", mode="base", speculation="off")
    assert alone.timings.base_evaluated_tokens < alone.timings.base_prompt_tokens + alone.base.tokens


def test_headings_of_the_base_do_not_cut_and_white_space_stays(demo: Pair) -> None:
    for text in (" [User] hi \n", "\n\n[Assistant]\n ", "<think>so</think> x "):
        for mode in ("wsd", "draft", "base"):
            reply = demo.reply(PROMPTS[0], regex=re.escape(text).replace("\\\n", "\\n").replace("\\ ", " "), mode=mode)
            assert (reply.text, reply.constraint and reply.constraint.complete) == (text, True)


def test_a_cut_reply_says_that_it_is_not_complete(demo: Pair) -> None:
    for asked in ({"max_tokens": 3}, {"stop": ("c",)}, {"stop": ("c",), "mode": "base"}):
        reply = demo.reply(PROMPTS[0], regex="abcdefghijkl[m-z]{20}", **asked)
        assert reply.constraint is not None and not reply.constraint.complete
        assert "abcdefghijkl".startswith(reply.text)
    whole = demo.reply(PROMPTS[0], regex="ab", stop=("zz",), max_tokens=2)
    assert whole.constraint is not None and whole.constraint.complete


def test_the_supplied_beginning_of_an_answer_is_part_of_the_text(demo: Pair) -> None:
    asked = [{"role": "user", "content": "A person?"}, {"role": "assistant", "content": '{"name": "Bo'}]
    for mode in ("wsd", "base", "draft"):
        reply = demo.reply(asked, json_schema=PERSON, mode=mode)
        value = json.loads('{"name": "Bo' + reply.text)
        jsonschema.validate(value, PERSON)
        assert reply.constraint is not None and reply.constraint.complete
    with pytest.raises(UsageError, match="supplied beginning"):
        demo.start([asked[0], {"role": "assistant", "content": "Sure: "}], json_schema=PERSON)


def test_what_the_vocabulary_cannot_write(pair: Pair) -> None:
    fleet: Fleet[str] = Fleet(pair)
    fleet.add("stuck", "word", mode="base", regex="ab\U0010fffe")
    fleet.add("well", "word", mode="base", regex="ab")
    found = {key: event for key, event in fleet.events() if isinstance(event, Failed | Finished)}
    stuck, well = found["stuck"], found["well"]
    assert isinstance(well, Finished) and well.reply.text == "ab"
    if isinstance(stuck, Failed):
        assert isinstance(stuck.error, WsdError) and "cannot write" in str(stuck.error)
    else:
        assert isinstance(stuck, Finished) and stuck.reply.text == "ab\U0010fffe"


def test_sessions_batches_and_one_model_at_a_time(demo_q8: tuple[Path, Path], demo: Pair) -> None:
    schema = json.dumps(PERSON)
    alone = [demo.reply(prompt, json_schema=schema, speculation="off").text for prompt in PROMPTS[:5]]
    loading = LoadSettings(threads=1, parallel=4, ctx=512)
    with Pair(draft=demo_q8[0], base=demo_q8[1], loading=loading) as many:
        replies = dict(many.replies(PROMPTS[:5], json_schema=schema))
        for reply in replies.values():
            jsonschema.validate(json.loads(reply.text), PERSON)
    with Pair(draft=demo_q8[0], base=demo_q8[1], loading=LoadSettings(threads=1, resident="one")) as one:
        assert one.reply(PROMPTS[0], json_schema=schema).text == alone[0]
    with demo.session() as chat:
        for text in ("First?", "Second?"):
            reply = chat.send(text, json_schema=schema)
            jsonschema.validate(json.loads(reply.text), PERSON)


def test_a_cancelled_reply_goes_on_in_its_text(demo: Pair) -> None:
    whole = demo.reply(PROMPTS[2], json_schema=PERSON, speculation="off").text
    for after in range(1, 12):
        run = demo.start(PROMPTS[2], json_schema=PERSON, speculation="off")
        texts = ""
        for number, event in enumerate(run.events()):
            texts += event.text if isinstance(event, Text) else ""
            if number == after:
                demo.cancel()
        demo.models.cancellation.clear()
        texts += "".join(event.text for event in run.events() if isinstance(event, Text))
        assert texts == whole == run.reply.text


def test_a_reply_handed_over_goes_on_in_its_text(pair: Pair) -> None:
    run = pair.start(PROMPTS[2], json_schema=PERSON, threshold=2.0, max_tokens=400)
    for event in run.events():
        if isinstance(event, Text):
            run.hand_over()
    assert run.reply.switch.reason == "user"
    jsonschema.validate(json.loads(run.reply.text), PERSON)


# -- an independent decision -------------------------------------------------------------------------------------

WORDS = [f"{a} {b}{c}" for a in ("yes", "no", "perhaps") for b in ("I", "you", "they") for c in (" may.", " will", "!")]


class Reference:
    """Weak-to-Strong Decoding in three passes, with matchers over llguidance's own reading of the vocabularies."""

    def __init__(self, pair: Pair, regex: str) -> None:
        self.pair = pair
        self.grammar = LLMatcher.grammar_from_regex(regex)
        self.tokenizers: dict[Model, Any] = {}

    def begun(self, context: Sequences, text: str = "") -> Any:
        ends = list(context.model.eog_tokens)
        if context.model not in self.tokenizers:
            self.tokenizers[context.model] = lltokenizer_from_vocab(context.model.vocab, eos_token=ends)
        tokenizer = self.tokenizers[context.model]
        matcher = LLMatcher(tokenizer, self.grammar)
        tokens = tokenizer.tokenize_str(text)
        assert tokenizer.decode_str(tokens) == text and matcher.consume_tokens(tokens)
        return matcher

    def greedy(self, context: Sequences, tokens: list[int], text: str = "") -> str:
        """What follows `tokens`, which write `text`: always the favourite that the matcher allows."""
        matcher, model = self.begun(context, text), context.model
        written: list[int] = []
        while not matcher.is_stopped():
            rows: list[Any] = []
            so_far = [*tokens, *written]

            def answer(_: int, row: int, rows: list[Any] = rows) -> None:
                rows.append(np.array(context._logits(row)))

            context.ask(Question(0, so_far, len(so_far) - 1, answer))
            bias = np.frombuffer(matcher.compute_logit_bias(), dtype=np.uint8)[: model.n_vocab]
            token = int(np.where(bias > 0, rows[0], -np.inf).argmax())
            if model.is_eog(token):
                break
            matcher.consume_token(token)
            written.append(token)
        return b"".join(map(model.piece, written)).decode()

    def reply(self, prompt: str, window: int, threshold: float) -> tuple[str, int | None, str]:
        run = self.pair.start(prompt, window=window, threshold=threshold)
        draft, base = self.pair.models.context("draft"), self.pair.models.context("base")
        text = self.greedy(draft, list(run.prepared.tokens("draft")))
        prompt = run.prepared.prompts["base"].text
        prompt_ids = base.model.tokenize(prompt)
        tokens = base.model.tokenize(prompt + text)
        logs = base.logprobs(0, tokens, len(prompt_ids))
        means = [math.exp(sum(logs[i - window + 1 : i + 1]) / window) for i in range(window - 1, len(logs))]
        index = next((i + window - 1 for i, mean in enumerate(means) if mean >= threshold), None)
        tokens = tokens[: len(prompt_ids) + (len(logs) if index is None else index + 1)]
        opening = b"".join(map(base.model.piece, tokens[len(prompt_ids) :])).decode()
        return opening + self.greedy(base, tokens, opening), index, opening


@pytest.mark.parametrize(("window", "threshold"), [(2, 0.0), (2, 0.02), (3, 0.1), (6, 0.8), (4, 2.0)])
def test_the_decision_is_that_of_a_reference(
    pair: Pair, demo_f32: tuple[Path, Path], window: int, threshold: float
) -> None:
    regex = "|".join(map(re.escape, WORDS)).replace("\\ ", " ")
    with exact_pair(demo_f32) as trained:
        for one in (pair, trained):
            reference = Reference(one, regex)
            for prompt in PROMPTS[:5]:
                ours = one.reply(prompt, regex=regex, window=window, threshold=threshold)
                theirs = reference.reply(prompt, window, threshold)
                assert (ours.text, ours.switch.index, ours.draft.text) == theirs


@pytest.mark.parametrize("asked", [{}, {"temperature": 1.1, "draft_temperature": 0.9}, {"repeat_penalty": 1.3}])
def test_proposals_and_chunks_change_nothing(demo_f32: tuple[Path, Path], asked: dict[str, Any]) -> None:
    taken = 0
    with eager(demo_f32, reply=PLAIN) as one:
        for prompt in PROMPTS[:5]:
            given: dict[str, Any] = {"json_schema": PERSON, "seed": 5, "mode": "fixed:2", **asked}
            plain = one.reply(prompt, **given, speculation="off")
            for other in (
                one.reply(prompt, **given, speculation="auto"),
                one.reply(prompt, **given, speculation="lookup"),
                one.reply(prompt, **given, check_chunk=1),
                one.reply(prompt, **given, speculation="auto"),
            ):
                assert (other.text, other.switch) == (plain.text, plain.switch)
                taken += other.speculation.accepted_tokens
    assert taken


# -- the command line --------------------------------------------------------------------------------------------


def test_the_options(tmp_path: Path) -> None:
    files = {"grammar": 'root ::= "yes" | "no, never"', "json-schema": '{"const": "yes"}', "lark": 'start: "yes"'}
    for name, source in files.items():
        path = tmp_path / name
        path.write_text(source)
        done = wsd("run", "hi", f"--{name}", str(path))
        assert (done.returncode, done.stdout.strip(b'"\n') in (b"yes", b"no, never")) == (0, True)
    assert wsd("run", "hi", "--regex", "y(e)s").stdout == b"yes\n"
    two = wsd("run", "hi", "--regex", "y", "--lark", str(tmp_path / "lark"))
    assert (two.returncode, two.stderr.count(b"\n")) == (2, 1)


def test_a_cut_text_is_one_line_and_exit_code_1() -> None:
    cut = wsd("run", "hi", "--regex", "a{50}", "--max-tokens", "2")
    assert cut.returncode == 1
    assert cut.stdout.strip(b"a\n") == b"" and cut.stdout.endswith(b"\n")
    assert cut.stderr.count(b"\n") == 1 and b"not complete" in cut.stderr and b"--max-tokens" in cut.stderr
    stopped = wsd("run", "hi", "--regex", "abc", "--stop", "b", "--json")
    assert stopped.returncode == 1 and b"--stop" in stopped.stderr
    assert json.loads(stopped.stdout)["constraint"] == {"kind": "regex", "complete": False}


def test_data_sets_count_what_was_cut(tmp_path: Path) -> None:
    data = tmp_path / "in.jsonl"
    data.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    for asked, stdin in (((str(data), "--quiet"), b""), (("-",), data.read_bytes())):
        done = wsd("run", "--input", *asked, "--regex", "a{50}", "--max-tokens", "3", stdin=stdin)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert [line["constraint"]["complete"] for line in lines] == [False, False]
        assert done.returncode == 0
        assert b"2 replies were cut" in done.stderr


def test_hostile_sources_end_the_command_at_once(tmp_path: Path) -> None:
    """None of them crashes or hangs the program, whatever it would do to a parser."""
    for kind, source, _ in REFUSED[:3] + REFUSED[11:14]:
        path = tmp_path / "source"
        path.write_text(source)
        done = wsd("run", "hi", "--mode", "base", f"--{kind}", str(path), "--max-tokens", "3")
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)


class Screen(io.StringIO):
    """A terminal on which standard output and standard error are the same."""

    def isatty(self) -> bool:
        return True


def test_notices_wait_for_the_end_of_the_answers_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, screen)
    monkeypatch.setenv("NO_COLOR", "1")
    printer = Printer(as_json=False, tokens=False, trace=False)
    printer.show(Notice("before"))
    printer.show(Text("Half a", "draft"))
    printer.show(Notice("meanwhile"))
    printer.show(Text(" line", "base"))
    printer.close()
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).replace("\r", "")
    assert shown == "wsd-local: before\nHalf a line\nwsd-local: meanwhile\n"


def test_a_pipe_gets_the_answer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    printer = Printer(as_json=False, tokens=False, trace=False)
    printer.show(Text("Half a", "draft"))
    printer.show(Notice("meanwhile"))
    printer.close()
    assert (out.getvalue(), err.getvalue()) == ("Half a", "wsd-local: meanwhile\n")
