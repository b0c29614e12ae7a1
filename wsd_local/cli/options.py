"""Options of commands: those of settings, read off their declaration, and those that several commands share.

Contract: a command that takes settings receives a dictionary of those that were given, and no others (`takes`), so
that the configuration decides on the rest. An option's value may begin with a hyphen. A whole number is written as one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, TypeVar, get_args, get_origin

from cyclopts import Group, Parameter

from wsd_local.cli import names, terminal
from wsd_local.errors import UsageError
from wsd_local.fields import Declared, FromFile, Heading, declared, read
from wsd_local.load_settings import MACHINE, MODELS, MOST_PARALLEL
from wsd_local.settings import CONTINUATION, DRAFTING, RULE, declarations

if TYPE_CHECKING:
    from cyclopts import Token

Given = Mapping[str, Any]
"""The options that were given, by the names of their fields."""

NOTHING: Given = MappingProxyType({})

Command = TypeVar("Command", bound=Callable[..., Any])

DATA = Heading("Data sets")
SERVER = Heading("Server")
ACCESS = Heading("Access")
SERVICE = Heading("Service")
_ORDER = (DATA, SERVER, ACCESS, SERVICE, MODELS, RULE, CONTINUATION, DRAFTING, MACHINE)
_GROUPS = {heading: Group(heading.title, sort_key=place) for place, heading in enumerate(_ORDER)}
_COMPLETERS = {
    "pair": names.pairs,
    "draft": names.models,
    "base": names.models,
    "draft_lora": names.own_models,
    "base_lora": names.own_models,
    "base_format": names.base_formats,
    "input": names.data_sets,
    "prompts": names.data_sets,
    "judge": names.models,
    "format": names.formats,
    "export": names.exports,
    "open": names.chats,
}
"""What offers names for an option's value; for others the shell offers files, or nothing."""
NAME_OR_FILE = ("draft", "base", "draft_lora", "base_lora", "base_format", "input", "prompts", "judge")
"""Options whose value is a name or a file."""


@dataclass(frozen=True, slots=True)
class Models:
    """Which models make a reply."""

    pair: Annotated[str | None, MODELS] = None
    """Pair by name. [default: the configuration's, else demo]"""
    draft: Annotated[str | None, MODELS] = None
    """Draft model by path or name, instead of the pair's."""
    base: Annotated[str | None, MODELS] = None
    """Base model by path or name, or a server that has it (http://HOST:PORT), instead of the pair's."""
    base_format: Annotated[Path | None, MODELS] = None
    """Format in which the base reads a conversation: a known one by name, or a TOML file."""


@dataclass(frozen=True, slots=True)
class DataSetOptions:
    """Which data set is answered, and where its replies go.

    Raises:
        UsageError: the number of replies at once is outside its range.
    """

    input: Annotated[str | None, DATA] = None
    """Data set to answer: a file, a public set by name, or - for JSON lines on standard input."""
    output: Annotated[Path | None, DATA] = None
    """File for the replies, one line of JSON each; the same command continues it."""
    format: Annotated[str | None, DATA] = None
    """Format of the input, where it is not recognised."""
    column: Annotated[str | None, DATA] = None
    """Column of a table that holds the prompts."""
    limit: Annotated[int | None, DATA] = None
    """Answer only the first records."""
    shard: Annotated[str | None, DATA] = None
    """i/n: only every n-th record, from the i-th."""
    parallel: Annotated[int | Literal["auto"], DATA] = "auto"
    """Replies at once: a number, or auto: as many as memory and speed allow."""
    on_error: Annotated[Literal["skip", "stop"], DATA] = "skip"
    """What happens when a record cannot be answered."""
    export: Annotated[tuple[str, ...], DATA] = ()
    """Also write what a judge reads: alpaca_eval, arena_hard, mt_bench, truthfulqa, hh, authors; may be given again."""
    result_key: Annotated[Literal["target_result", "draft_result"], DATA] = "target_result"
    """Result that --export authors names as the answer: the whole reply, or the draft."""
    quiet: Annotated[bool, DATA] = False
    """Show no progress."""

    def __post_init__(self) -> None:
        if self.result_key != "target_result" and "authors" not in self.export:
            raise UsageError("result-key is given, and it is for --export authors alone: leave it out")
        if self.parallel != "auto" and self.parallel < 1:
            raise UsageError(f"parallel is {self.parallel}: it must be auto or a number of at least 1")
        if self.parallel != "auto" and self.parallel > MOST_PARALLEL:
            raise UsageError(f"parallel is {self.parallel}: llama.cpp has at most {MOST_PARALLEL} sequences")


def strictly(kind: Any, tokens: Sequence[Token]) -> Any:
    """Read one value; a whole number with a fraction is refused and not rounded."""
    return read(kind, tokens[0].value)


def option(help: str, *names: str, **more: Any) -> Parameter:
    """An option with a value."""
    return Parameter(name=names or None, help=help, allow_leading_hyphen=True, negative=(), **more)


def number(help: str, *names: str, **more: Any) -> Parameter:
    """An option whose value is a number."""
    return option(help, *names, converter=strictly, **more)


def flag(help: str, *names: str, **more: Any) -> Parameter:
    """An option without a value."""
    return Parameter(name=names or None, help=help, negative=(), show_default=False, **more)


def takes(**declarations: Iterable[Declared]) -> Callable[[Command], Command]:
    """Let a command take options for declared fields, as one parameter of the type `Given`."""

    def decorate(command: Command) -> Command:
        for parameter, fields in declarations.items():
            command.__annotations__[parameter] = _flattened(fields)
        return command

    return decorate


def settings_named(*names: str) -> list[Declared]:
    """The declarations of settings."""
    found = declarations()
    return [found[name] for name in names]


def settings_without(*names: str) -> list[Declared]:
    """The declarations of all settings but these."""
    return [one for name, one in declarations().items() if name not in names]


def models_named(*names: str) -> list[Declared]:
    """The declarations of options that choose models."""
    found = declared(Models)
    return [found[name] for name in names]


def models_of(given: Given) -> dict[str, Any]:
    """Models that were chosen, as `load` takes them; a file with a base format is read.

    Raises:
        UsageError: the file cannot be read, or holds no base format.
    """
    from wsd_local.library.catalog import read_base_format

    models = {name: value for name, value in given.items() if name != "pair"}
    if "base_format" in models:
        models["base_format"] = read_base_format(Path(models["base_format"]))
    return models


def setting_values(given: Given) -> dict[str, Any]:
    """Values of settings that were given as options; files are read.

    Raises:
        UsageError: a file cannot be read.
    """
    from wsd_local.system.inputs import read_text

    found = declarations()
    values = dict(given)
    for name, value in given.items():
        if found[name].file is FromFile.TEXT:
            values[name] = read_text(value)
        elif found[name].file is FromFile.PATH:
            values[name] = str(value)
    return values


def _flattened(fields: Iterable[Declared]) -> Any:
    options = {field.name: Annotated[_kind(field), _parameter(field)] for field in fields}
    return Annotated[TypedDict("Options", options, total=False), Parameter(name="*")]  # type: ignore[operator]


def _kind(field: Declared) -> Any:
    """The type of an option's value."""
    if field.file is not None:
        return Path
    if field.name in NAME_OR_FILE:
        return str | Path  # the first is what a command receives, the second is what a shell offers
    if get_origin(field.kind) is tuple:
        return list[str]
    kinds = [kind for kind in get_args(field.kind) if kind is not NoneType]
    return field.kind if get_origin(field.kind) is Literal or not kinds else reduce(or_, kinds)


def _parameter(field: Declared) -> Parameter:
    more: dict[str, Any] = {} if field.heading is None else {"group": _GROUPS[field.heading]}
    name = f"--{field.spelling}"
    if field.kind is bool:
        negative = f"--no-{field.spelling}" if field.default is True else ()
        return Parameter(name, help=field.help, negative=negative, show_default=False, **more)
    if field.name in NAME_OR_FILE:
        more["metavar"] = "NAME|PATH"
    if _kind(field) not in (str, Path, str | Path, list[str]):
        more["converter"] = strictly
    return option(
        field.help,
        name,
        show_choices=get_origin(field.kind) is Literal,
        show_default=False if field.default in (None, MISSING, ()) else str(field.default),
        completer=_COMPLETERS.get(field.name),
        **more,
    )


def show_native_log(verbose: bool) -> None:
    """Print llama.cpp's log to standard error, or leave it silent."""
    if verbose:
        import logging

        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(terminal.VisibleFormatter("%(name)s: %(message)s"))
        logging.basicConfig(level=logging.DEBUG, handlers=[handler])


PairName = Annotated[
    str | None,
    Parameter(help=declared(Models)["pair"].help, completer=names.pairs),
]
Json = Annotated[bool, flag("Print JSON instead of tables.", "--json")]
Debug = Annotated[bool, flag("Show tracebacks.")]
Verbose = Annotated[bool, flag("Show llama.cpp's log on standard error.")]
