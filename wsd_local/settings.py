"""Every setting of a reply, and of how models are loaded: the only place where a setting is declared.

Contract: the name, type, default and help of a setting are those of its field here. Options of the command line, keys
of `config.toml`, `WSD_LOCAL_…` variables and keyword arguments of the Python API are read off these fields (see
`wsd_local.fields`). Values are checked when they are made, without llama.cpp.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from wsd_local.constraints.constraint import KINDS, Constraint
from wsd_local.core.limits import Limits, fixed_tokens
from wsd_local.core.rule_settings import ENDING, USES, RuleName, make_rule, require_rule
from wsd_local.core.rules import Rule
from wsd_local.core.sampling import Sampling
from wsd_local.core.speculation import Speculation
from wsd_local.errors import UsageError, nearest, short
from wsd_local.fields import Declared, FromFile, Heading, declared, given, read, require_kinds, spelled
from wsd_local.load_settings import OF_PAIR as OF_PAIR
from wsd_local.load_settings import LoadSettings as LoadSettings
from wsd_local.load_settings import require_counts

RULE = Heading("Weak-to-Strong Decoding")
CONTINUATION = Heading("Continuation")
DRAFTING = Heading("Drafting")


@dataclass(frozen=True, slots=True)
class ReplySettings:
    """How one reply is made.

    Sampling settings are those of the model that continues; with `draft_` in front they are the drafting model's.
    At most one of `grammar`, `json_schema`, `regex` and `lark` may be given, see `Constraint`.

    Raises:
        UsageError: a value is of the wrong type or outside its range, or two values contradict each other.
    """

    rule: Annotated[RuleName, RULE] = "window"
    """Who writes next: window, the paper's rule; return, where the draft comes back; entropy, where the base takes
    over once it has few doubts; nudging, where the base writes and the draft lends it words; or veto and bet, where the
    draft leads and the base replaces what it finds improbable."""
    window: Annotated[int, RULE] = 6
    """Base tokens in the window."""
    threshold: Annotated[float, RULE] = 0.8
    """Confidence at which the base takes over; above 1 it never does."""
    return_: Annotated[float, RULE] = 0.3
    """For the rule return: the draft comes back where the base's largest probability is below this; 0 is never."""
    entropy: Annotated[float, RULE] = 0.5
    """For the rule entropy, in place of --threshold: the base takes over where the mean entropy of its distribution, in
    nats, is at most this."""
    nudging: Annotated[float, RULE] = 0.3
    """For the rule nudging: the base writes where its largest probability is at least this (0.4 for Llama-2 models),
    else the draft does."""
    veto: Annotated[float, RULE] = 0.05
    """For the rule veto: the base's probability below which it replaces a word of the draft, or, with one vocabulary,
    defers a token to it."""
    bet: Annotated[float, RULE] = 0.5
    """For the rule bet: as --veto, but the bound is the draft's largest probability less this."""
    draft_max_tokens: Annotated[int, RULE] = 512
    """Longest draft, in draft tokens."""
    on_draft_end: Annotated[Literal["continue", "stop"], RULE] = "continue"
    """What happens when the draft ends before the base has taken over: the base continues, or the reply stops."""
    check_chunk: Annotated[int, RULE] = 8
    """Base tokens of the draft that are checked together; changes the time a reply takes, not its text."""
    mode: Annotated[str, RULE] = "wsd"
    """wsd; base or draft (one model alone); fixed:K (keep K base tokens of the draft); or urial (the base alone, after
    an in-context prompt)."""
    urial: Annotated[str | None, RULE, FromFile.TEXT] = None
    """Text of the in-context prompt of the mode urial."""
    max_tokens: Annotated[int, CONTINUATION] = 2048
    """Longest reply, in base tokens."""
    temperature: Annotated[float, CONTINUATION] = 0.0
    """Sampling temperature; 0 is greedy."""
    top_k: Annotated[int, CONTINUATION] = 0
    """Sample from the k most probable tokens only; 0 is off."""
    top_p: Annotated[float, CONTINUATION] = 1.0
    """Sample from the most probable tokens whose probabilities sum up to p; 1 is off."""
    min_p: Annotated[float, CONTINUATION] = 0.0
    """Sample from tokens that are at least p times as probable as the most probable one; 0 is off."""
    repeat_penalty: Annotated[float, CONTINUATION] = 1.0
    """Penalty of tokens that occurred before; 1 is off."""
    frequency_penalty: Annotated[float, CONTINUATION] = 0.0
    """Penalty of a token for each time that it occurred before; 0 is off."""
    presence_penalty: Annotated[float, CONTINUATION] = 0.0
    """Penalty of a token that occurred before; 0 is off."""
    repeat_last_n: Annotated[int, CONTINUATION] = 64
    """Last tokens that penalties look at, those of the prompt included; -1 is all of them."""
    seed: Annotated[int | None, CONTINUATION] = None
    """Seed of the random numbers; drawn if not given (--json reports it)."""
    stop: Annotated[tuple[str, ...], CONTINUATION] = ()
    """End the reply before this text; may be given again."""
    grammar: Annotated[str | None, CONTINUATION, FromFile.TEXT] = None
    """GBNF grammar that the whole reply must follow."""
    json_schema: Annotated[str | None, CONTINUATION, FromFile.TEXT] = None
    """JSON schema that the whole reply must follow."""
    regex: Annotated[str | None, CONTINUATION] = None
    """Regular expression that the whole reply must match."""
    lark: Annotated[str | None, CONTINUATION, FromFile.TEXT] = None
    """Lark grammar that the whole reply must follow."""
    loop_guard: Annotated[Literal["auto", "on", "off"], CONTINUATION] = "auto"
    """End a text that only repeats itself: the draft's turn, or the reply. auto: on, but off with --ignore-eos and for
    data sets (--input), whose runs are those of the paper."""
    ignore_eos: Annotated[bool, CONTINUATION] = False
    """Continue to --max-tokens or a --stop: no end token and no heading ends the reply."""
    speculation: Annotated[Speculation, CONTINUATION] = "auto"
    """Source of tokens that the base verifies together, where that pays: the draft model, the text itself (lookup), or
    both (auto); changes the time a reply takes, not its text."""
    draft_temperature: Annotated[float, DRAFTING] = temperature
    """For the draft: sampling temperature; 0 is greedy."""
    draft_top_k: Annotated[int, DRAFTING] = top_k
    """For the draft: sample from the k most probable tokens only; 0 is off."""
    draft_top_p: Annotated[float, DRAFTING] = top_p
    """For the draft: sample from the most probable tokens whose probabilities sum up to p; 1 is off."""
    draft_min_p: Annotated[float, DRAFTING] = min_p
    """For the draft: sample from tokens at least p times as probable as the most probable one; 0 is off."""
    draft_repeat_penalty: Annotated[float, DRAFTING] = repeat_penalty
    """For the draft: penalty of tokens that occurred before; 1 is off."""
    draft_frequency_penalty: Annotated[float, DRAFTING] = frequency_penalty
    """For the draft: penalty of a token for each time that it occurred before; 0 is off."""
    draft_presence_penalty: Annotated[float, DRAFTING] = presence_penalty
    """For the draft: penalty of a token that occurred before; 0 is off."""
    draft_repeat_last_n: Annotated[int, DRAFTING] = repeat_last_n
    """For the draft: last tokens that penalties look at; -1 is all of them."""
    draft_seed: Annotated[int | None, DRAFTING] = None
    """For the draft: seed of the random numbers; that of --seed if not given."""
    probabilities: bool = False
    """Also compute the probability of each token of the continuation."""

    def __post_init__(self) -> None:
        require_kinds(self)
        require_counts(self)
        require_rule(self, {field.name: field.default for field in fields(self)})
        _ = self.make_rule(), self.sampling, self.draft_sampling, self.fixed
        for name in ("draft_max_tokens", "max_tokens", "check_chunk"):
            value = getattr(self, name)
            if value < 1:
                raise UsageError(f"{spelled(name)} is {value}: it counts tokens and must be at least 1")
        if (constraint := self.constraint) is not None and self.ignore_eos:
            raise UsageError(
                f"ignore-eos and {constraint.name} are given: a constraint decides where a text ends; leave one out",
                about="ignore_eos",
            )
        if self.ignore_eos and self.on_draft_end == "stop":
            raise UsageError("ignore-eos and on-draft-end stop are given: leave one out", about="ignore_eos")
        if (self.mode == "urial") != (self.urial is not None):
            raise UsageError("mode urial and the text of its prompt go together: give both (--mode urial --urial FILE)")
        if "" in self.stop:
            raise UsageError("a stop string is empty: leave it out")

    def make_rule(self) -> Rule:
        """The rule, a new object for each reply."""
        return make_rule(self)

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
        sources = {kind: source for kind in KINDS if (source := getattr(self, kind)) is not None}
        if len(sources) > 1:
            given = " and ".join(map(spelled, sources))
            raise UsageError(f"{given} are given: only one of them can hold", about=list(sources)[-1])
        return next((Constraint(kind, source) for kind, source in sources.items()), None)

    @property
    def fixed(self) -> int | None:
        """K of `fixed:K`, None in the other modes."""
        return fixed_tokens(self.mode)

    def limits(self, room: int, stops: tuple[str, ...], *, whole_draft: bool = False) -> Limits:
        """Limits of a reply for which `room` tokens are left in the context; a whole draft is checked at its end."""
        return Limits(
            max_tokens=min(self.max_tokens, room),
            draft_max_tokens=self.draft_max_tokens if self.rule not in ENDING else sys.maxsize,
            check_chunk=sys.maxsize if whole_draft else self.check_chunk,
            on_draft_end=self.on_draft_end,
            fixed=self.fixed,
            stops=stops + self.stop,
            loops=self.loop_guard == "on" or (self.loop_guard == "auto" and not self.ignore_eos),
        )


def of_mode(mode: str) -> dict[str, Any]:
    """A mode, with the defaults of what goes with another one only: a model alone follows no rule."""
    usual = {field.name: field.default for field in fields(ReplySettings)}
    return {"mode": mode} if mode == "wsd" else {"mode": mode, **{name: usual[name] for name in ("rule", *USES)}}


Values = TypeVar("Values", ReplySettings, LoadSettings)


def changed(settings: Values, values: Mapping[str, Any]) -> Values:
    """A copy of `settings` with other values.

    Raises:
        UsageError: a name is unknown (the nearest one is suggested) or a value is of the wrong kind.
    """
    known = [field.name for field in fields(settings)]
    if isinstance(settings, ReplySettings):
        for name in given(LoadSettings, values):
            raise UsageError(f"{name} is a setting of loading: it cannot be given for one reply")
    _require_known(values, known)
    new: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in values.items()}
    if isinstance(new.get("stop"), str):
        new["stop"] = (new["stop"],)
    if isinstance(new.get("json_schema"), Mapping):
        new["json_schema"] = json.dumps(new["json_schema"])
    return replace(settings, **new)


def _require_known(values: Iterable[str], known: Sequence[str]) -> None:
    for name in values:
        if name not in known:
            raise UsageError(f"there is no setting {name!r}{nearest(name, known)}")


def names() -> list[str]:
    """Names of all settings."""
    return [field.name for kind in (ReplySettings, LoadSettings) for field in fields(kind)]


def declarations() -> dict[str, Declared]:
    """Every setting, by name."""
    return {**declared(ReplySettings), **declared(LoadSettings)}


def read_text(name: str, text: str) -> Any:
    """The value of a setting that is given as text, as in an environment variable.

    Raises:
        UsageError: it is not of the setting's type.
    """
    kind = {**get_type_hints(ReplySettings), **get_type_hints(LoadSettings)}[name]
    try:
        return read(kind, text)
    except ValueError as error:
        raise UsageError(f"{spelled(name)} is {short(text)}: {error}") from None


def split(values: Mapping[str, Any]) -> tuple[ReplySettings, LoadSettings]:
    """Reply and load settings from one set of names.

    Raises:
        UsageError: as `changed`.
    """
    _require_known(values, names())
    load = given(LoadSettings, values)
    reply = {name: value for name, value in values.items() if name not in load}
    return changed(ReplySettings(), reply), changed(LoadSettings(), load)


def plain(*settings: ReplySettings | LoadSettings) -> dict[str, Any]:
    """Plain values for a report."""
    return {name: value for values in settings for name, value in asdict(values).items()}
