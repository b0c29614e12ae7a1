"""A client's parameters become settings of a reply, or are refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from wsd_local.fields import declared
from wsd_local.load_settings import MOST
from wsd_local.server.body import SETTINGS, Body, NoToolChoice, NoTools
from wsd_local.server.errors import ApiError, body_of, validation_error
from wsd_local.server.parameters import ReplyBody, ResponseFormat, reply_settings
from wsd_local.settings import ReplySettings, changed


class Request(ReplyBody):
    """A body with everything that is tested here."""

    max_tokens: int | None = None
    response_format: ResponseFormat | None = None
    tools: NoTools = None
    tool_choice: NoToolChoice = None


def settings(**body: Any) -> dict[str, Any]:
    return Request.model_validate(body).settings()


def refused(**body: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        settings(**body)
    assert caught.value.status == 400
    return caught.value


def test_null_is_not_given_unless_it_is_required() -> None:
    class Wanted(Body):
        model: str = "one"
        flag: bool = True
        text: str

    assert Wanted.model_validate({"model": None, "flag": None, "text": "a"}) == Wanted(text="a")
    with pytest.raises(ValidationError):
        Wanted.model_validate({"text": None})


def test_parameters_are_settings_by_their_own_names() -> None:
    body = {"temperature": 1, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "seed": 7, "frequency_penalty": 1.5}
    assert settings(**body) == body
    assert settings(repetition_penalty=1.1) == {"repeat_penalty": 1.1}
    assert settings(temperature=None, stop=None, max_tokens=None, wsd=None) == {}


def test_every_name_is_a_setting() -> None:
    assert set(SETTINGS.values()) <= set(declared(ReplySettings))


@pytest.mark.parametrize(
    ("seed", "expected"), [(0, 0), (7, 7), (-1, None), (2**32 - 1, None), (-2, 2**32 - 3), (2**40, 2**40 % (2**32 - 1))]
)
def test_seeds_have_llama_cpps_habits(seed: int, expected: int | None) -> None:
    assert settings(seed=seed) == {"seed": expected}
    assert settings(wsd={"seed": seed}) == {"seed": expected}


@given(st.integers())
def test_any_whole_number_is_a_seed(seed: int) -> None:
    made = changed(ReplySettings(), reply_settings({"seed": seed}))
    assert made.seed is None or 0 <= made.seed < 2**32 - 1


def test_minus_one_means_as_many_as_fit() -> None:
    assert settings(max_tokens=-1, top_k=-1) == {"max_tokens": MOST, "top_k": 0}
    assert settings(wsd={"max_tokens": -1}) == {"max_tokens": MOST}


def test_stop_is_text_or_a_list() -> None:
    assert settings(stop="a") == {"stop": ("a",)}
    assert settings(stop=["a", "b"]) == {"stop": ("a", "b")}
    assert settings(stop=[]) == {"stop": ()}
    assert refused(stop="").param == "stop"


@pytest.mark.parametrize(
    ("form", "schema"),
    [
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_object", "schema": {"type": "array"}}, {"type": "array"}),
        (
            {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": {"type": "null"}}},
            {"type": "null"},
        ),
    ],
)
def test_a_response_format_is_a_constraint_in_place_of_the_servers(form: Any, schema: Any) -> None:
    assert settings(response_format=form) == {"grammar": None, "regex": None, "lark": None, "json_schema": schema}


def test_the_format_text_is_no_constraint() -> None:
    assert settings(response_format={"type": "text"}) == {}


@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_schema"},
        {"type": "text", "schema": {}},
        {"type": "json_object", "json_schema": {"schema": {"type": "null"}}},
        {"type": "json_schema", "schema": {}, "json_schema": {"schema": {}}},
    ],
)
def test_a_response_format_that_contradicts_itself_is_refused(form: Any) -> None:
    assert str(refused(response_format=form).param).startswith("response_format")


def test_a_value_outside_its_range_is_refused_under_the_clients_name() -> None:
    error = refused(repetition_penalty=0.0)
    assert error.param == "repetition_penalty"
    assert error.message.startswith("repetition_penalty is 0")


def test_names_that_mean_the_same_must_agree() -> None:
    assert settings(max_tokens=5, wsd={"max_tokens": 5}) == {"max_tokens": 5}
    assert reply_settings({"max_tokens": 5, "max_completion_tokens": 5}) == {"max_tokens": 5}
    assert refused(max_tokens=5, wsd={"max_tokens": 6}).param == "wsd.max_tokens"
    with pytest.raises(ApiError, match="max_tokens and max_completion_tokens are given and differ"):
        reply_settings({"max_tokens": 5, "max_completion_tokens": 6})


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    error = refused(temprature=1)
    assert (error.param, "'temperature'" in error.message) == ("temprature", True)
    error = refused(wsd={"treshold": 1})
    assert (error.param, "'threshold'" in error.message) == ("wsd.treshold", True)
    assert refused(wsd={"ctx": 512}).param == "wsd.ctx"
    assert refused(response_format={"type": "text", "strict": True}).param == "response_format.strict"


def test_a_name_that_is_not_unicode_is_refused_in_printable_characters() -> None:
    body = body_of("/v1/chat/completions", refused(**{"\ud800\n": 1}))
    assert body["error"]["param"].encode() and body["error"]["message"].isprintable()


def test_what_is_not_supported_is_refused_by_name_and_its_absence_is_not() -> None:
    assert settings(tools=[], tool_choice="auto") == settings(tools=None, tool_choice="none") == {}
    assert refused(tools=[{"type": "function"}]).param == "tools"
    assert refused(tool_choice="required").param == "tool_choice"


@pytest.mark.parametrize("value", [1, "a", [], {"threshold": "a"}, {"threshold": True}, {"stop": 3}, {"events": 1}])
def test_wsd_has_the_declared_types(value: Any) -> None:
    assert str(refused(wsd=value).param).startswith("wsd")


def test_wsd_takes_settings_by_their_names_and_events() -> None:
    body = Request.model_validate(
        {"stream": True, "wsd": {"threshold": 0.5, "mode": "fixed:3", "stop": ["a"], "events": True}}
    )
    assert body.events
    assert body.settings() == {"threshold": 0.5, "mode": "fixed:3", "stop": ("a",)}
    assert not Request.model_validate({"wsd": {}}).events
    assert settings(wsd={"mode": "urial", "urial": "Be kind."}) == {"mode": "urial", "urial": "Be kind."}
    assert refused(wsd={"mode": "urial"}).param == "wsd.mode"


def test_the_schema_of_wsd_lists_every_setting() -> None:
    schema = Request.model_json_schema()["properties"]["wsd"]["anyOf"][0]
    assert set(schema["properties"]) == {*declared(ReplySettings), "events"}


def test_the_schema_of_a_body_has_the_help_of_its_settings() -> None:
    properties = Request.model_json_schema()["properties"]
    assert properties["max_tokens"]["description"] == declared(ReplySettings)["max_tokens"].help
    assert properties["repetition_penalty"]["description"] == declared(ReplySettings)["repeat_penalty"].help


@pytest.mark.parametrize("value", [True, "1", float("nan"), [1]])
def test_types_are_strict(value: Any) -> None:
    with pytest.raises(ValueError, match="temperature"):
        settings(temperature=value)


def test_bodies_inside_bodies_name_their_place() -> None:
    class Inner(Body):
        place = "outer"
        known: int = 0

    with pytest.raises(ApiError) as caught:
        Inner.model_validate({"knwon": 1})
    assert caught.value.param == "outer.knwon"


def test_a_body_of_another_form_is_refused_with_the_place_and_what_is_wanted() -> None:
    def message(body: Any) -> tuple[str, str | None]:
        with pytest.raises(ValidationError) as caught:
            Request.model_validate(body)
        faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in caught.value.errors()]
        error = validation_error(body, faults)
        return error.message, error.param

    assert message({"temperature": "a"}) == ("temperature must be a valid number", "temperature")
    assert message({"stop": 3}) == ("stop must be a valid string or must be a valid list", "stop")
    assert message({"stop": ["a", 3]})[1] == "stop[1]"
    assert message({"response_format": {}}) == ("response_format.type is missing", "response_format.type")
    assert message([])[1] is None
