"""A client's parameters as settings of a reply, and refusals by name of what is not supported.

Contract: a parameter that is None counts as not given. Nothing that is given is ignored: what has no meaning here is
refused with its name, except for what `docs/guide/openai.md` lists as without effect. Values have llama.cpp's habits
where OpenAI has none: a seed of -1 is drawn, -1 tokens are as many as fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    TypeAdapter,
    WithJsonSchema,
)

from wsd_local.constraints.constraint import KINDS
from wsd_local.core.rule_settings import by_itself
from wsd_local.core.sampling import LARGEST, LONGEST
from wsd_local.errors import UsageError, short
from wsd_local.fields import declared, spelled
from wsd_local.load_settings import MOST
from wsd_local.server.body import SETTINGS, Body, refuse_unknown
from wsd_local.server.errors import ApiError
from wsd_local.server.service import ReplyRequest, Service
from wsd_local.settings import ReplySettings, changed

_SEEDS = 2**32 - 1
"""Number of seeds; llama.cpp draws one for this number."""


# -- settings --------------------------------------------------------------------------------------------------


def reply_settings(
    given: Mapping[str, Any], wsd: Mapping[str, Any] | None = None, paths: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """Names and values of `ReplySettings` that a request asks for.

    Args:
        given: the request's parameters; those that are not in `SETTINGS` are left alone.
        wsd: the request's object `wsd`.
        paths: where parameters stand that are inside other objects of the request.

    Raises:
        ApiError: a value is outside its range, or two parameters contradict each other; `param` names it.
    """
    found: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name, value in given.items():
        setting = SETTINGS.get(name)
        if setting is None or value is None:
            continue
        path = paths.get(name, name)
        meant = _MEANINGS[setting](value) if setting in _MEANINGS else value
        _require_valid(path, setting, meant)
        _require_same(names, found, path, setting, meant)
        found[setting], names[setting] = meant, path
    for setting, value in (wsd or {}).items():
        if setting != EVENTS and value is not None:
            meant = _MEANINGS[setting](value) if setting in _MEANINGS else value
            _require_same(names, found, f"wsd.{setting}", setting, meant)
            found[setting] = meant
    if any(found.get(kind) is not None for kind in KINDS):
        return {**dict.fromkeys(KINDS), **found}  # the server's own constraint does not hold
    return found


def spellings(
    given: Mapping[str, Any], wsd: Mapping[str, Any] | None = None, paths: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """How a request spells the settings that it has, for errors about them; arguments as of `reply_settings`."""
    own = {setting: f"wsd.{setting}" for setting, value in (wsd or {}).items() if value is not None}
    asked = {SETTINGS[name]: paths.get(name, name) for name in given if name in SETTINGS and given[name] is not None}
    return own | asked


def asked_of(service: Service, request: ReplyRequest) -> ReplySettings:
    """The settings of the replies to a request.

    Raises:
        UsageError: its settings contradict each other, or those of the server; the error names one as the client does.
    """
    try:
        return changed(service.defaults, request.settings)
    except UsageError as error:
        raise request.named(error) from None


def _require_valid(path: str, setting: str, value: Any) -> None:
    try:
        changed(ReplySettings(), {setting: value})
    except UsageError as error:
        message = str(error).replace(f"{spelled(setting)} is", f"{path} is", 1)
        message = message.replace(f"{spelled(setting)}: ", f"{path}: ", 1)
        raise ApiError(400, _with_advice(setting, message), param=path) from None


def _with_advice(setting: str, message: str) -> str:
    """What else clients may give than the settings' declaration says."""
    return f"{message}; -1 is as many as fit" if setting == "max_tokens" else message


def _require_same(names: Mapping[str, str], found: Mapping[str, Any], name: str, setting: str, value: Any) -> None:
    if setting in names and found[setting] != value:
        other = names[setting]
        raise ApiError(400, f"{other} and {name} are given and differ: they mean the same; leave one out", param=name)


def _seed(value: int) -> int | None:
    return None if value in (-1, _SEEDS) else value % _SEEDS


def _tokens(value: int) -> int:
    return MOST if value == -1 else value


def _top_k(value: int) -> int:
    return 0 if value == -1 else value


def _stop(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _schema(value: Mapping[str, Any] | str) -> Mapping[str, Any] | str:
    return {"type": "object"} if value == "json" else value


_MEANINGS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {"seed": _seed, "max_tokens": _tokens, "top_k": _top_k, "stop": _stop, "json_schema": _schema}
)


# -- constraints -----------------------------------------------------------------------------------------------


class JsonSchema(Body):
    """A JSON schema with a name, as OpenAI wraps it; the name, the description and `strict` change nothing here."""

    place: ClassVar[str] = "response_format.json_schema"
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """The form of an answer: text, any JSON object, or JSON by a schema. `schema` is llama.cpp's short spelling."""

    place: ClassVar[str] = "response_format"
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")

    def schema_wanted(self) -> dict[str, Any] | None:
        """The JSON schema that the answer must follow; None for text.

        Raises:
            ApiError: a schema is missing, or given where none is used.
        """
        nested = None if self.json_schema is None else self.json_schema.schema_
        if nested is not None and self.schema_ is not None:
            raise ApiError(400, "response_format has two schemas; leave one out", param="response_format")
        if self.type == "json_object" and self.schema_ is not None:
            return self.schema_
        schema = self.schema_ if nested is None else nested
        return schema_of(self.type, schema, "response_format", "response_format.json_schema.schema")


def schema_of(kind: str, schema: dict[str, Any] | None, place: str, name: str) -> dict[str, Any] | None:
    """The JSON schema that an answer of some form must follow; None for text.

    Args:
        kind: `text`, `json_object` or `json_schema`.
        schema: the schema that is given with it.
        place: the parameter that holds the form.
        name: the full name of the schema.

    Raises:
        ApiError: the schema is missing, or given where none is used.
    """
    if kind == "json_schema":
        if schema is None:
            raise ApiError(400, f"{name} is missing", param=name)
        return schema
    if schema is not None:
        raise ApiError(400, f"{place} has a schema, and its type is {kind}: give the type json_schema", param=place)
    return {"type": "object"} if kind == "json_object" else None


# -- the object wsd --------------------------------------------------------------------------------------------

EVENTS = "events"
"""The name in `wsd` by which a client asks for every event."""


def _checked_wsd(value: Any) -> Any:
    """The object `wsd`, with the names and types of the settings' declaration."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ApiError(400, f"wsd is {short(value)}: it must be an object", param="wsd")
    known = [*declared(ReplySettings), EVENTS]
    refuse_unknown(value, known, "wsd")
    if not isinstance(value.get(EVENTS), bool | None):
        raise ApiError(400, f"wsd.events is {short(value[EVENTS])}: it must be true or false", param="wsd.events")
    given = {name: part for name, part in value.items() if name != EVENTS and part is not None}
    pair = {"mode", "urial"} & set(given)  # neither is valid without the other
    for names in ({name} for name in given if name not in pair):
        _require_own(given, names)
    if pair:
        _require_own(given, pair)
    return {**given, EVENTS: value.get(EVENTS) or False}


def events_wanted(wsd: Mapping[str, Any] | None, *, streams: bool) -> bool:
    """Whether a client asks for every event of its replies.

    Raises:
        ApiError: it asks for them, and for an answer that is no stream.
    """
    wanted = bool(wsd and wsd.get(EVENTS))
    if wanted and not streams:
        raise ApiError(400, "wsd.events is given without stream: true", param="wsd.events")
    return wanted


def _require_own(given: Mapping[str, Any], names: set[str]) -> None:
    meant = {name: _MEANINGS[name](given[name]) if _translates(name, given[name]) else given[name] for name in names}
    try:
        alone = [by_itself(name, value) for name, value in meant.items()]
        changed(ReplySettings(), {name: value for one in alone for name, value in one.items()})
    except UsageError as error:
        name = min(names)
        raise ApiError(400, f"wsd: {_with_advice(name, str(error))}", param=f"wsd.{name}") from None


def _translates(name: str, value: Any) -> bool:
    """Whether a value has a meaning of its own; one of the wrong type has none."""
    return name in _MEANINGS and name != "stop" and isinstance(value, int) and not isinstance(value, bool)


def _wsd_schema() -> dict[str, Any]:
    """JSON schema of `wsd`, for the description of the interface."""
    properties: dict[str, Any] = {EVENTS: {"type": "boolean", "description": "Send every event of the reply."}}
    for name, field in declared(ReplySettings).items():
        kinds = TypeAdapter(field.kind).json_schema()
        options = [*kinds.get("anyOf", [kinds]), {"type": "null"}]
        properties[name] = {"anyOf": [kind for i, kind in enumerate(options) if kind not in options[:i]]}
        properties[name]["description"] = field.help
    wsd = {"type": "object", "properties": properties, "additionalProperties": False}
    return {
        "anyOf": [wsd, {"type": "null"}],
        "title": "Wsd",
        "description": "Settings of this program, by their names.",
    }


Wsd = Annotated[dict[str, Any] | None, BeforeValidator(_checked_wsd), WithJsonSchema(_wsd_schema())]
"""A request's object `wsd`: settings of a reply by their own names, and `events`."""


def _within(least: float, most: float) -> Any:
    """A number's default, None, and its range for the description of the interface; `reply_settings` checks it."""
    return Field(None, json_schema_extra={"minimum": least, "maximum": most})


# -- what every request for a reply has ------------------------------------------------------------------------

Stop = Annotated[str | list[str] | None, Field(description="Texts before which the reply ends.")]


class ReplyBody(Body):
    """Parameters that OpenAI's requests for a reply have in common."""

    model: str = ""
    temperature: float | None = _within(0, LARGEST)
    top_p: float | None = _within(0, 1)
    top_k: int | None = _within(-1, MOST)
    min_p: float | None = _within(0, 1)
    repeat_penalty: float | None = _within(1 / LARGEST, LARGEST)
    repetition_penalty: float | None = _within(1 / LARGEST, LARGEST)
    repeat_last_n: int | None = _within(-1, LONGEST)
    frequency_penalty: float | None = _within(-LARGEST, LARGEST)
    presence_penalty: float | None = _within(-LARGEST, LARGEST)
    seed: int | None = None
    stop: Stop = None
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    truncate: bool | None = None
    wsd: Wsd = None
    user: str | None = None

    @property
    def events(self) -> bool:
        """Whether the client asks for every event; see `events_wanted`."""
        return events_wanted(self.wsd, streams=bool(self.stream))

    paths: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """See `reply_settings`."""

    def settings(self) -> dict[str, Any]:
        """Names and values of `ReplySettings` that the request asks for.

        Raises:
            ApiError: see `reply_settings`.
        """
        return reply_settings(self._given(), self.wsd, self.paths)

    def spellings(self) -> dict[str, str]:
        """How the request spells these settings.

        Raises:
            ApiError: see `reply_settings`.
        """
        return spellings(self._given(), self.wsd, self.paths)

    def _given(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in type(self).model_fields}
        form: ResponseFormat | None = given.get("response_format")
        if form is not None:
            given["response_format"] = form.schema_wanted()
        return given
