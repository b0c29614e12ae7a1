"""The whole measurement: from a loaded pair to what is recommended for it on this machine.

Contract: nothing is printed or written; temporary files are in a folder that the caller removes. All of it ends soon
after the time that is given: the lengths are chosen by the base's speed, and nothing is begun whose time is not left.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsd_local.datasets import Item
from wsd_local.errors import UsageError
from wsd_local.library.vetting import amx_works
from wsd_local.llama import Model
from wsd_local.llama.devices import host_memory
from wsd_local.reports.bench import cycled
from wsd_local.reports.contention import Elsewhere, Watch
from wsd_local.reports.tune.candidates import KINDS, Candidate, Source, made
from wsd_local.reports.tune.deciding import Costs, Shape, usual_shape
from wsd_local.reports.tune.knobs import ROLES, SETTING, SPARE, Lengths, Probes, all_knobs, draft_knob
from wsd_local.reports.tune.openings import PROMPTS, Openings, Present, compare
from wsd_local.reports.tune.replies import Confirmed, Way, answered, chosen, confirm, opened, shape_of
from wsd_local.reports.tune.rounds import (
    Clock,
    Deadline,
    Finding,
    Knob,
    KnobRounds,
    best_ways,
    findings,
    measure_in_turns,
    predicted,
    usual_costs,
)
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Reply
from wsd_local.settings import OF_PAIR
from wsd_local.system.child import Stoppable, nothing

PARTS_SHARE, MAKING_SHARE, OPENINGS_SHARE = 0.55, 0.2, 0.5
"""Of what is left when each begins: parts in turns; making drafts; comparing their openings."""
READ_SHARE, WRITE_SHARE, DEEP_SHARE = 0.015, 0.02, 0.03
"""Of the whole time: reading one prompt, writing one reply, reading a deep context once."""
MOST_PROMPT, MOST_REPLY, MOST_DEEP = 200, 64, 1024
LEAST_PROMPT, LEAST_REPLY = 16, 8
PRESENT, DRAFT = "present", "draft type"
LONGEST_QUESTION = 200
"""Characters of a question that is answered or opened."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is measured: for how many seconds, and which settings were given and stay. `most_reply` is in tokens."""

    seconds: float
    held: Sequence[str] = ()
    most_reply: int = MOST_REPLY


@dataclass(frozen=True, slots=True)
class Hooks:
    """What happens meanwhile: `progress` receives what is done next, and may raise; `stoppable` a child's stop."""

    progress: Callable[[str], None] = nothing
    stoppable: Stoppable = nothing


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was found. `recommended` holds settings by name, and the draft's type under `draft`."""

    source: Source
    lengths: Lengths
    shape: Shape
    costs: Costs
    findings: tuple[Finding, ...]
    left_out: Mapping[str, str]
    candidates: tuple[Candidate, ...]
    openings: Mapping[str, Openings]
    predicted: float | None
    confirmed: tuple[Confirmed, ...]
    elsewhere: Elsewhere
    seconds: float
    recommended: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "draft": {"file": str(self.source.path), "type": self.source.kind, "requantised": self.source.is_quantised},
            "prompt_tokens": self.lengths.prompt,
            "reply_tokens": self.lengths.reply,
            "depth": self.lengths.deep,
            "shape": {name: getattr(self.shape, name) for name in ("drafted", "checked", "kept", "continued", "chunk")},
            "parts_seconds": dict(self.costs),
            "parts": [one.as_dict() for one in self.findings],
            "not_measured": {**self.left_out, **{one.kind: one.why for one in self.candidates if one.path is None}},
            "openings": {kind: one.as_dict() for kind, one in self.openings.items()},
            "predicted": self.predicted,
            "replies": [one.as_dict() for one in self.confirmed],
            "recommended": dict(self.recommended),
            "elsewhere": {"programs": self.elsewhere.programs, "host": self.elsewhere.host},
            "seconds": self.seconds,
        }


class Tuning:
    """One measurement of a loaded pair.

    Args:
        pair: loaded, both models in memory.
        items: prompts for whole replies and openings.
        folder: for drafts of other types; whoever made it removes it.
        wanted: see `Wanted`.
        hooks: see `Hooks`.
        clock: seconds.

    Raises:
        UsageError: the models take turns in memory.
    """

    def __init__(
        self, pair: Pair, items: Sequence[Item], folder: Path, wanted: Wanted, hooks: Hooks, clock: Clock
    ) -> None:
        if pair.models.loading.resident == "one":
            raise UsageError("resident is one: models would be loaded within what is measured; tune with both")
        self.pair, self.wanted, self.hooks, self.clock = pair, wanted, hooks, clock
        self._questions = [list(one.messages) for one in items if _is_short(one)]
        self._folder = folder
        self._deadline = Deadline(wanted.seconds, clock)
        self._source = Source.of(pair.models.paths["draft"])
        self._drafts: dict[str, Model] = {}
        self._candidates: list[Candidate] = []
        self._opened: dict[str, Pair] = {}
        self._probes: Probes | None = None

    def cancel(self) -> None:
        """Stop an evaluation that is in progress, from any thread."""
        if self._probes is not None:
            self._probes.cancellation.set()
        for pair in list(self._opened.values()):
            pair.models.cancellation.set()

    def run(self) -> Tuned:
        """Measure.

        Raises:
            CancelledError: it was stopped.
            WsdError: the models cannot be measured.
        """
        watch = Watch()
        try:
            return self._run(watch)
        finally:
            self._close()

    def _run(self, watch: Watch) -> Tuned:
        self.hooks.progress("warming up")
        lengths = self._lengths()
        chunk = self.pair.settings.check_chunk
        probes = self._probes
        assert probes is not None
        shape, first = self._usual_reply(lengths, chunk), probes.costs(chunk)
        knobs = all_knobs(
            probes,
            chunk,
            self._draft_knob,
            self.wanted.held,
            cores=os.cpu_count() or 1,
            free=host_memory()[0],
        )
        rounds = [KnobRounds(knob) for knob in knobs.measured]
        measure_in_turns(rounds, first, shape, self._deadline.share(PARTS_SHARE), self.hooks.progress)
        found, costs = findings(rounds, first, shape), usual_costs(rounds, first)
        openings = self._openings(found)
        best = self._best(found, openings)
        confirmed = self._confirmed(best, lengths)
        return Tuned(
            source=self._source,
            lengths=lengths,
            shape=shape,
            costs=costs,
            findings=tuple(found),
            left_out={**knobs.left_out, **{one.knob.name: "no time was left" for one in rounds if not one.rounds}},
            candidates=tuple(self._candidates),
            openings=openings,
            predicted=predicted(best, costs, shape, _value(best, "check chunk")) if best else None,
            confirmed=tuple(confirmed),
            elsewhere=watch.elsewhere(),
            seconds=self._deadline.spent,
            recommended=_recommended(chosen(confirmed), best),
        )

    # -- steps -------------------------------------------------------------------------------------------------

    def _lengths(self) -> Lengths:
        """Lengths that fit the time, by the base's speed; the probes are made for them."""
        text = " ".join(message["content"] for messages in self._questions for message in messages)
        models = self.pair.models
        tokens = {role: cycled(models.model(role).tokenize(text), MOST_PROMPT) for role in ROLES}
        trial = self._probes = Probes(
            self.pair, {role: tokens[role][:LEAST_PROMPT] for role in ROLES}, Lengths(LEAST_PROMPT, 0, 0), self.clock
        )
        base = trial.of("base")
        base.read()
        read_s, token_s = base.read() / LEAST_PROMPT, base.token()
        trial.close()
        room = min(models.n_ctx(role) for role in ROLES) - SPARE
        lengths = lengths_for(self.wanted.seconds, read_s, token_s, self.wanted.most_reply, room)
        prompts = {role: tokens[role][: lengths.prompt] for role in ROLES}
        self._probes = Probes(self.pair, prompts, lengths, self.clock)
        return lengths

    def _usual_reply(self, lengths: Lengths, chunk: int) -> Shape:
        """What a reply is made of at present, from the first questions; both models work here for the first time."""
        present = self._open(Way(PRESENT))
        shapes = []
        for number in range(2):
            _, reply = self._answer(present, number, lengths.reply)
            shapes.append(shape_of(reply, chunk))
        return usual_shape(shapes)

    def _answer(self, pair: Pair, number: int, tokens: int) -> tuple[float, Reply]:
        return answered(pair, self._questions[number % len(self._questions)], tokens, self.clock)

    def _draft_knob(self) -> Knob | str:
        """The draft in other types, made and loaded as far as time and memory allow; or why there are none."""
        if 2 * self._source.size * len(KINDS) > host_memory()[0]:
            return "memory has no room for more drafts"

        def making(what: str, fraction: float) -> None:
            self.hooks.progress(f"a draft of another type: {what}, {fraction:.0%}")

        limit = self._deadline.share(MAKING_SHARE)
        self._candidates = made(self._source, self._folder, limit, making, self.hooks.stoppable)
        for one in self._candidates:
            if one.path is not None:
                layers = -1 if self.pair.models.model("draft").may_offload else 0
                self._drafts[one.kind] = Model(one.path, n_gpu_layers=layers, load_mode="none", repack=amx_works())
        assert self._probes is not None
        return draft_knob(self._probes, self._source.kind, self._drafts) if self._drafts else "none could be made"

    def _openings(self, found: Sequence[Finding]) -> dict[str, Openings]:
        """How openings change with the drafts that make a reply faster."""
        faster = [one for one in found if one.knob == DRAFT and one.ratio.verdict == "faster"]
        if not faster:
            return {}
        probes = self._probes
        assert probes is not None
        form = self.pair.models.draft_format
        prompts = [form.prompt(messages).tokens for messages in self._questions[:PROMPTS]]
        size = max(map(len, prompts)) + SPARE
        present = Present(probes.of("draft", n_ctx=size), prompts)
        limit = self._deadline.share(OPENINGS_SHARE)
        result = {}
        for place, one in enumerate(faster):
            part = limit.share(1 / (len(faster) - place))
            other = probes.of("draft", model=one.value, n_ctx=size)
            result[one.way] = compare(present, other, part, self.hooks.progress)
        return result

    def _best(self, found: Sequence[Finding], openings: Mapping[str, Openings]) -> dict[str, Finding]:
        """The best ways; a draft that changes many openings is none of them."""
        kept = [one for one in found if one.knob != DRAFT or (one.way in openings and openings[one.way].acceptable)]
        return best_ways(kept)

    def _confirmed(self, best: Mapping[str, Finding], lengths: Lengths) -> list[Confirmed]:
        """Whole replies in turns: at present, with the best ways, and with other proposals."""
        ways = ways_of(best, self.pair.settings.speculation, proposals="speculation" not in self.wanted.held)
        if len(ways) == 1:
            return []
        return confirm(
            ways,
            lambda way, number: self._answer(self._open(way), number, lengths.reply)[0],
            self._deadline,
            self.hooks.progress,
        )

    def _open(self, way: Way) -> Pair:
        if way.name not in self._opened:
            room = min(self.pair.models.n_ctx(role) for role in ROLES)
            new = self._opened[way.name] = opened(self.pair, way, min(room, MOST_DEEP))
            self._answer(new, 0, LEAST_REPLY)  # what is touched for the first time is not measured
        return self._opened[way.name]

    def _close(self) -> None:
        for pair in self._opened.values():
            pair.close()
        if self._probes is not None:
            self._probes.close()
        for model in self._drafts.values():
            model.close()


# -- decisions -------------------------------------------------------------------------------------------------------


def lengths_for(seconds: float, read_s: float, token_s: float, most_reply: int, room: int) -> Lengths:
    """Lengths of what is measured in `seconds`.

    Args:
        seconds: the whole time.
        read_s: seconds in which the base reads one token of a prompt.
        token_s: seconds in which it writes one.
        most_reply: longest reply, in tokens.
        room: tokens that the smaller context holds.
    """
    prompt = max(LEAST_PROMPT, min(MOST_PROMPT, int(READ_SHARE * seconds / read_s), room))
    reply = max(LEAST_REPLY, min(most_reply, int(WRITE_SHARE * seconds / token_s)))
    deep = min(MOST_DEEP, int(DEEP_SHARE * seconds / read_s), room)
    return Lengths(prompt, reply, deep if deep >= 2 * prompt else 0)


def ways_of(best: Mapping[str, Finding], speculation: str, *, proposals: bool) -> list[Way]:
    """The ways whose whole replies are compared; the first is the present one.

    With `proposals`, replies with and without them are compared too, in the best way that the parts show.
    """
    values = {SETTING[name]: one.value for name, one in best.items()}
    draft = values.pop("draft", None)
    loading = {name: value for name, value in values.items() if name in OF_PAIR}
    reply = {name: value for name, value in values.items() if name not in loading}
    name = ", ".join(f"{one.knob} {one.way}" for one in best.values())
    ways = [Way(PRESENT)]
    if best:
        ways.append(Way(name, loading, reply, draft))
    for other in [value for value in ("auto", "off") if value != speculation] if proposals else []:
        label = f"proposals {other}"
        ways.append(Way(f"{name}, {label}" if best else label, loading, {**reply, "speculation": other}, draft))
    return ways


def _value(best: Mapping[str, Finding], knob: str) -> Any:
    return best[knob].value if knob in best else None


def _recommended(found: Confirmed | None, best: Mapping[str, Finding]) -> dict[str, Any]:
    """Settings by name, and the draft's type; nothing where whole replies confirm nothing."""
    if found is None:
        return {}
    draft = {} if found.way.draft is None else {"draft": best[DRAFT].way}
    return {**draft, **found.way.loading, **found.way.reply}


def _is_short(item: Item) -> bool:
    return sum(len(message["content"]) for message in item.messages) <= LONGEST_QUESTION
