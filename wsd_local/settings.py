"""Every setting of a reply, and of how models are loaded, as values.

Contract: checked when made, no llama.cpp. Names are those of the command line's options and of the keyword
arguments of the Python API.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from wsd_local.constraints.constraint import KINDS, Constraint
from wsd_local.core.decoding import Limits
from wsd_local.core.rules import Rule, Window
from wsd_local.core.sampling import Sampling
from wsd_local.core.speculation import Speculation
from wsd_local.errors import UsageError, short

FlashAttention = Literal["on", "off", "auto"]
LoadMode = Literal["auto", "none", "mmap", "mlock", "mmap+mlock", "dio"]
CacheType = Literal["auto", "f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]


MOST_PARALLEL = 256
MOST_THREADS = 512
"""What llama.cpp can take of each."""

MOST = 2**31 - 1
"""The largest number of anything that llama.cpp counts."""

STRONGEST_LORA = 1000.0


@dataclass(frozen=True, slots=True)
class ReplySettings:
    """How one reply is made.

    The settings of `Sampling` are those of the model that continues; with `draft_` in front they are the drafting
    model's, whose `draft_seed` None means the same seed. One of `grammar` (GBNF, its first rule is `root`),
    `json_schema` (JSON), `regex` and `lark` may say what the whole reply follows, see `Constraint`. `mode` is `wsd`,
    `base` (the base alone), `draft` (the draft alone), `fixed:K` (exactly K base tokens of the draft are kept) or
    `urial` (the base alone after `urial`, the text of an in-context prompt).
    With `ignore_eos` a reply goes on to `max_tokens`, or to a string of `stop`: neither end tokens nor what begins
    another section of the base's format end it, and after the draft's end the base continues.
    `probabilities` also computes the probability of each token of the continuation. `speculation` is where proposals
    for the continuation come from, which never change it: `draft`, `lookup` (the text itself), `auto` (both) or `off`.
    """

    window: int = 6
    threshold: float = 0.8
    draft_max_tokens: int = 512
    max_tokens: int = 2048
    on_draft_end: Literal["continue", "stop"] = "continue"
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_last_n: int = 64
    seed: int | None = None
    draft_temperature: float = 0.0
    draft_top_k: int = 0
    draft_top_p: float = 1.0
    draft_min_p: float = 0.0
    draft_repeat_penalty: float = 1.0
    draft_frequency_penalty: float = 0.0
    draft_presence_penalty: float = 0.0
    draft_repeat_last_n: int = 64
    draft_seed: int | None = None
    grammar: str | None = None
    json_schema: str | None = None
    regex: str | None = None
    lark: str | None = None
    check_chunk: int = 8
    ignore_eos: bool = False
    mode: str = "wsd"
    urial: str | None = None
    stop: tuple[str, ...] = ()
    probabilities: bool = False
    speculation: Speculation = "auto"

    def __post_init__(self) -> None:
        _require_kinds(self)
        _require_counts(self)
        _ = self.rule(), self.sampling, self.draft_sampling, self.fixed
        for name in ("draft_max_tokens", "max_tokens", "check_chunk"):
            value = getattr(self, name)
            if value < 1:
                raise UsageError(f"{name.replace('_', '-')} is {value}: it counts tokens and must be at least 1")
        if (constraint := self.constraint) is not None and self.ignore_eos:
            raise UsageError(f"ignore-eos and {constraint.name} are given: it says where a text ends; leave one out")
        if self.ignore_eos and self.on_draft_end == "stop":
            raise UsageError("ignore-eos and on-draft-end stop are given: one of them ends no reply; leave one out")
        if (self.mode == "urial") != (self.urial is not None):
            raise UsageError("mode urial and the text of its prompt go together: give both (--mode urial --urial FILE)")
        if "" in self.stop:
            raise UsageError("a stop string is empty: leave it out")

    def rule(self) -> Rule:
        """The rule that decides where the base takes over, a new object for each reply."""
        return Window(self.window, self.threshold)

    @property
    def sampling(self) -> Sampling:
        """How the model that continues chooses its tokens."""
        return Sampling(**{field.name: getattr(self, field.name) for field in fields(Sampling)})

    @property
    def draft_sampling(self) -> Sampling:
        """How the drafting model chooses its tokens."""
        own = {field.name: getattr(self, f"draft_{field.name}") for field in fields(Sampling)}
        try:
            return Sampling(**own)
        except UsageError as error:
            raise UsageError(f"draft-{error}") from None

    @property
    def constraint(self) -> Constraint | None:
        """What the whole reply must follow."""
        given = {kind: source for kind in KINDS if (source := getattr(self, kind)) is not None}
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given).replace('_', '-')} are given: only one of them can hold")
        return next((Constraint(kind, source) for kind, source in given.items()), None)

    @property
    def fixed(self) -> int | None:
        """K of `fixed:K`, None in the other modes."""
        if self.mode in ("wsd", "base", "draft", "urial"):
            return None
        kind, _, count = self.mode.partition(":")
        if kind != "fixed" or not count.isdecimal() or int(count) < 1:
            raise UsageError(
                f"mode is {self.mode!r}: it must be wsd, base, draft, urial or fixed:K with K of at least 1"
            )
        return int(count)

    def limits(self, room: int, stops: tuple[str, ...], *, whole_draft: bool = False) -> Limits:
        """Limits of a reply for which `room` tokens are left in the context; a whole draft is checked at its end."""
        return Limits(
            max_tokens=min(self.max_tokens, room),
            draft_max_tokens=self.draft_max_tokens,
            check_chunk=sys.maxsize if whole_draft else self.check_chunk,
            on_draft_end=self.on_draft_end,
            fixed=self.fixed,
            stops=stops + self.stop,
        )


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """How both models are loaded. `ctx` None: 4096 tokens, or what the model was trained for if that is less.

    With `n_gpu_layers` of `auto` both models are placed together by `wsd_local.placement.plan`, which then also chooses
    what else is `auto`, and a smaller context where memory is short. A number counts layers, -1 all of them, and
    nothing is planned; the `draft_` and `base_` values win over the common one. `load_mode` has llama.cpp's names. With
    `resident` of `one` only one model is in memory at a time: the draft is written whole, then the base is loaded; the
    reply is the same. `parallel` is the number of replies that can be in progress at once. `draft_lora` and `base_lora`
    are GGUF adapters, applied with their scale.
    """

    ctx: int | None = None
    threads: int | None = None
    n_gpu_layers: int | Literal["auto"] = "auto"
    draft_n_gpu_layers: int | None = None
    base_n_gpu_layers: int | None = None
    cache_type_k: CacheType = "auto"
    cache_type_v: CacheType = "auto"
    flash_attn: FlashAttention = "auto"
    load_mode: LoadMode = "auto"
    resident: Literal["both", "one"] = "both"
    parallel: int = 1
    draft_lora: str | None = None
    base_lora: str | None = None
    draft_lora_scale: float = 1.0
    base_lora_scale: float = 1.0

    def __post_init__(self) -> None:
        _require_kinds(self)
        for name in ("ctx", "parallel"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}: it must be at least 1")
        if self.parallel > MOST_PARALLEL:
            raise UsageError(f"parallel is {self.parallel}: llama.cpp has at most {MOST_PARALLEL} sequences")
        require_threads(self.threads)
        for name in ("n_gpu_layers", "draft_n_gpu_layers", "base_n_gpu_layers"):
            value = getattr(self, name)
            if isinstance(value, int) and value < -1:
                raise UsageError(f"{name.replace('_', '-')} is {short(value)}: it must be -1 (all) or more")
        _require_counts(self)
        for name in ("draft_lora_scale", "base_lora_scale"):
            if not -STRONGEST_LORA <= getattr(self, name) <= STRONGEST_LORA:
                raise UsageError(
                    f"{name.replace('_', '-')} is {getattr(self, name)}: it must lie between "
                    f"{-STRONGEST_LORA:g} and {STRONGEST_LORA:g}"
                )
            adapter = name.removesuffix("_scale")
            if getattr(self, name) != 1.0 and getattr(self, adapter) is None:
                told = adapter.replace("_", "-")
                raise UsageError(f"{told}-scale is given without {told}: name the adapter, or leave the scale out")

    def lora(self, role: Literal["draft", "base"]) -> tuple[Path, float] | None:
        """Adapter of one model and its scale."""
        path, scale = (
            (self.draft_lora, self.draft_lora_scale) if role == "draft" else (self.base_lora, self.base_lora_scale)
        )
        return None if path is None else (Path(path), scale)

    @property
    def planned(self) -> bool:
        """Whether the models are placed by a plan, and not by numbers that were given."""
        return self.n_gpu_layers == "auto" and self.draft_n_gpu_layers is None and self.base_n_gpu_layers is None

    def gpu_layers(self, role: Literal["draft", "base"]) -> int:
        """Layers of one model to put on accelerators where nothing is planned; -1 is all."""
        own = self.draft_n_gpu_layers if role == "draft" else self.base_n_gpu_layers
        common = -1 if self.n_gpu_layers == "auto" else int(self.n_gpu_layers)
        return common if own is None else own


Values = TypeVar("Values", ReplySettings, LoadSettings)


def _require_kinds(settings: ReplySettings | LoadSettings) -> None:
    """Raise `UsageError` for a value that is not of its field's type. An int is a float, True is no int."""
    kinds = get_type_hints(type(settings))
    for name, kind in kinds.items():
        value = getattr(settings, name)
        if not _is_of(value, kind):
            choices = get_args(kind) if get_origin(kind) is Literal else ()
            wanted = f"one of {', '.join(choices)}" if choices else _kind_name(kind)
            raise UsageError(f"{name.replace('_', '-')} is {short(value)}: it must be {wanted}")


def _require_counts(settings: ReplySettings | LoadSettings) -> None:
    """Raise `UsageError` for a number that llama.cpp could not even hold; seeds have bounds of their own."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, int) and value > MOST and not field.name.endswith("seed"):
            raise UsageError(f"{field.name.replace('_', '-')} is {short(value)}: it must be at most {MOST}")


def require_threads(threads: int | None) -> None:
    """Check a number of CPU threads.

    Raises:
        UsageError: there are none, or more than llama.cpp can take.
    """
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"threads is {short(threads)}: it must lie between 1 and {MOST_THREADS}")


def _kind_name(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return "text, or a list of texts"
    parts = [part for part in get_args(kind) if part is not type(None)]
    if get_origin(kind) is Literal:
        return " or ".join(map(str, parts))
    return " or ".join(map(_kind_name, parts)) if parts else getattr(kind, "__name__", str(kind))


def _is_of(value: object, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(isinstance(part, str) for part in value)
    if get_args(kind):
        return any(_is_of(value, part) for part in get_args(kind))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def changed(settings: Values, values: Mapping[str, Any]) -> Values:
    """A copy of `settings` with other values.

    Raises:
        UsageError: a name is unknown (the nearest one is suggested) or a value is of the wrong kind.
    """
    known = [field.name for field in fields(settings)]
    for name in values:
        if name not in known:
            raise UsageError(f"there is no setting {name!r}{nearest(name, known)}")
    given: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in values.items()}
    if isinstance(given.get("stop"), str):
        given["stop"] = (given["stop"],)
    if isinstance(given.get("json_schema"), Mapping):
        given["json_schema"] = json.dumps(given["json_schema"])
    return replace(settings, **given)


def names() -> list[str]:
    """Names of all settings."""
    return [field.name for kind in (ReplySettings, LoadSettings) for field in fields(kind)]


def read_text(name: str, text: str) -> Any:
    """The value of a setting that is given as text, as in an environment variable.

    Raises:
        UsageError: it is not of the setting's kind.
    """
    kind = {**get_type_hints(ReplySettings), **get_type_hints(LoadSettings)}[name]
    if get_origin(kind) is tuple:
        return (text,)
    readings: list[Any] = []
    for read in (int, float):
        with contextlib.suppress(ValueError):
            readings.append(read(text))
    for value in [{"true": True, "false": False}.get(text.lower(), text), *readings, text]:
        if _is_of(value, kind):
            return value
    return text


def split(values: Mapping[str, Any]) -> tuple[ReplySettings, LoadSettings]:
    """Reply and load settings from one set of names."""
    load_names = {field.name for field in fields(LoadSettings)}
    load = {name: value for name, value in values.items() if name in load_names}
    reply = {name: value for name, value in values.items() if name not in load_names}
    return changed(ReplySettings(), reply), changed(LoadSettings(), load)


def nearest(name: str, known: list[str]) -> str:
    """A suggestion to append to an error message; none where nothing is known."""
    if not known:
        return ""
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


def plain(*settings: ReplySettings | LoadSettings) -> dict[str, Any]:
    """Plain values for a report."""
    return {name: value for values in settings for name, value in asdict(values).items()}
