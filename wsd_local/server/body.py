"""Objects in requests: strict types, unknown names refused with the nearest one, refusals by name.

Contract: a body is a pydantic model derived from `Body`; what it accepts stands in `/openapi.json` with the help of the
settings that its fields are.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from wsd_local.errors import nearest, short
from wsd_local.fields import declared
from wsd_local.server.errors import ApiError
from wsd_local.settings import ReplySettings

SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "temperature": "temperature",
        "top_p": "top_p",
        "top_k": "top_k",
        "min_p": "min_p",
        "repeat_penalty": "repeat_penalty",
        "repetition_penalty": "repeat_penalty",
        "repeat_last_n": "repeat_last_n",
        "frequency_penalty": "frequency_penalty",
        "presence_penalty": "presence_penalty",
        "seed": "seed",
        "stop": "stop",
        "stop_sequences": "stop",
        "max_tokens": "max_tokens",
        "max_completion_tokens": "max_tokens",
        "max_output_tokens": "max_tokens",
        "num_predict": "max_tokens",
        "n_predict": "max_tokens",
        "grammar": "grammar",
        "json_schema": "json_schema",
        "response_format": "json_schema",
        "format": "json_schema",
        "ignore_eos": "ignore_eos",
    }
)
"""Names of parameters in any of the protocols, and the setting of `ReplySettings` that each of them is."""


def _describe(schema: dict[str, Any]) -> None:
    """Add the help of settings to the description of a body."""
    helps = declared(ReplySettings)
    for name, field in schema.get("properties", {}).items():
        if name in SETTINGS:
            field.setdefault("description", helps[SETTINGS[name]].help)


class Body(BaseModel):
    """An object in a request: types are strict, as in JSON, and an unknown name is refused with the nearest one.

    `place` is the name of an object inside the body, for messages.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, json_schema_extra=_describe)
    place: ClassVar[str] = ""

    @model_validator(mode="wrap")
    @classmethod
    def _with_place(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """The object; an error about one of its fields names the object too."""
        try:
            return handler(value)
        except ApiError as error:
            if not cls.place or error.param is None or error.param.startswith(cls.place):
                raise
            message, param = f"{cls.place}.{error.message}", f"{cls.place}.{error.param}"
            raise ApiError(error.status, message, param=param) from None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, value: Any) -> Any:
        """The object without the nulls that stand for a default."""
        if not isinstance(value, Mapping):
            return value
        fields = {field.alias or name: field for name, field in cls.model_fields.items()}
        refuse_unknown(value, list(fields), cls.place)
        return {name: part for name, part in value.items() if part is not None or fields[name].is_required()}


def refuse_unknown(given: Mapping[str, Any], known: list[str], place: str = "") -> None:
    """Raise `ApiError` for a name that is not known, suggesting the nearest one.

    Args:
        given: an object of the request.
        known: the names that it may have.
        place: the object's own name, if it is inside another.
    """
    for name in given:
        if name not in known:
            full = f"{place}.{name}" if place else name
            raise ApiError(400, f"there is no parameter {short(full)}{nearest(name, known)}", param=full)


def unsupported(reason: str) -> WrapValidator:
    """Metadata of a field: any value that is not of the field's type is refused with this reason."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        try:
            return handler(value)
        except ValidationError:
            name = info.field_name or "the parameter"
            raise ApiError(400, f"{name}: {reason}", param=info.field_name) from None

    return WrapValidator(check)


Empty = Annotated[list[Any], Field(max_length=0)]
"""A list with nothing in it."""

NoTools = Annotated[Empty | None, unsupported("tools are not supported; leave it out")]
NoToolChoice = Annotated[
    Literal["none", "auto"] | None, unsupported("tools are not supported; leave it out, or give none or auto")
]
NoBias = Annotated[
    Annotated[dict[str, Any], Field(max_length=0)] | None, unsupported("it is not supported; leave it out")
]
NotSupported = Annotated[None, unsupported("this is not supported; leave it out")]
ServiceTier = Annotated[
    Literal["auto", "default"] | None, unsupported("there are no tiers here; leave it out, or give auto or default")
]
