"""The settings that are measured, each as a knob over probes of a loaded pair.

Contract: `Probes` owns its probes and closes them. A knob has at least two ways; one that cannot be measured here is
`left_out` with its reason. What a setting of the command line holds is not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from wsd_local.core.resources import LoadMode
from wsd_local.errors import FitError, UsageError, WsdError
from wsd_local.events import Source
from wsd_local.llama import Cancellation, ContextOptions, Model
from wsd_local.llama.options import default_threads
from wsd_local.reports.tune.probe import Probe, options_of
from wsd_local.reports.tune.rounds import Clock, Knob, Measured
from wsd_local.runtime.llama_file import LlamaFile
from wsd_local.runtime.pair import Pair
from wsd_local.workers.apart import ApartModel

ROLES: tuple[Source, ...] = ("draft", "base")
CHUNKS = (4, 8, 16, 32)
UBATCHES = (32, 64, 128, 256, 512)
SPARE = 64
"""Tokens of a probe's context beyond those that are read."""
ROOM = 2.2
"""Free memory that a second copy of a model needs, in sizes of its file: a mapped one may be repacked."""


SETTING = {
    "draft type": "draft",
    "flash attention": "flash_attn",
    "check chunk": "check_chunk",
    "threads": "threads",
    "prompt step": "ubatch",
    "load mode": "load_mode",
}
"""The setting of each knob."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens: of the prompts that are read, of whole replies, and of the deep context, which may be 0: none."""

    prompt: int
    reply: int
    deep: int


class Probes:
    """Probes of a pair, made when they are first used.

    Args:
        pair: loaded, both models in memory.
        prompts: tokens of each model's prompt.
        lengths: see `Lengths`.
        clock: seconds.
    """

    def __init__(self, pair: Pair, prompts: Mapping[Source, Sequence[int]], lengths: Lengths, clock: Clock) -> None:
        self.pair, self.lengths, self.clock = pair, lengths, clock
        self.prompts = prompts
        self.cancellation = Cancellation()
        self._probes: dict[Any, Probe] = {}

    def close(self) -> None:
        """Free all contexts."""
        for probe in self._probes.values():
            probe.close()
        self._probes.clear()

    def of(self, role: Source, *, model: Model | None = None, deep: bool = False, **changes: Any) -> Probe:
        """The probe of a model, or of another `model` in its place, with changed options; `deep` has more room.

        Raises:
            FitError: llama.cpp cannot make such a context.
        """
        key = (role, id(model), deep, tuple(sorted(changes.items())))
        if key not in self._probes:
            size = (self.lengths.deep if deep else len(self.prompts[role])) + SPARE
            options: ContextOptions = options_of(self.pair.models.context(role), size, **changes)
            weights = model or self.pair.models.model(role)
            if isinstance(weights, ApartModel):
                raise UsageError("tuning measures models in this process, and rpc is given: leave it out", about="rpc")
            self._probes[key] = Probe(weights, options, self.cancellation, self.prompts[role], self.clock)
        return self._probes[key]

    def costs(self, chunk: int, **changes: Any) -> dict[str, float]:
        """All parts of a reply, measured once."""
        draft, base = (self.of(role, **changes) for role in ROLES)
        return {
            "draft_read": draft.read(),
            "draft_token": draft.token(),
            "base_read": base.read(),
            "base_token": base.token(),
            "check": base.check(chunk),
        }


# -- knobs -----------------------------------------------------------------------------------------------------------


def draft_knob(probes: Probes, present: str, drafts: Mapping[str, Model]) -> Knob:
    """The type of the draft's weights; `drafts` are loaded models of other types."""

    def measure(model: Model | None) -> Measured:
        probe = probes.of("draft", model=model)
        return {"draft_read": probe.read(), "draft_token": probe.token()}

    return Knob("draft type", {present: None, **drafts}, measure)


def threads_knob(probes: Probes, chunk: int, cores: int) -> Knob | None:
    """The number of CPU threads; None where there is no other."""
    present = probes.pair.models.loading.threads or default_threads()
    others = sorted({1, max(1, cores // 2), default_threads(), cores} - {present})
    if not others:
        return None

    def measure(threads: int) -> Measured:
        both = [probes.of(role) for role in ROLES]
        for probe in both:
            probe.context.use_threads(threads)
        try:
            return probes.costs(chunk)
        finally:
            for probe in both:
                probe.context.use_threads(present)

    return Knob("threads", {str(number): number for number in [present, *others]}, measure)


def ubatch_knob(probes: Probes) -> Knob | None:
    """Tokens of a prompt that are evaluated together; None where prompts are too short to see a difference."""
    present = probes.pair.models.loading.ubatch
    sizes = [probes.pair.models.context(role).piece for role in ROLES]
    longest = max(len(prompt) for prompt in probes.prompts.values())
    whole = next((size for size in UBATCHES if size >= longest), UBATCHES[-1])
    others = [size for size in UBATCHES if size <= whole and [size] * len(ROLES) != sizes]
    if not others:
        return None

    def measure(size: int | None) -> Measured:
        draft, base = (probes.of(role, n_ubatch=size) for role in ROLES)
        return {"draft_read": draft.read(), "base_read": base.read()}

    name = "/".join(map(str, dict.fromkeys(sizes)))
    return Knob("prompt step", {name: present, **{str(size): size for size in others}}, measure)


def flash_knob(probes: Probes, chunk: int) -> Knob | None:
    """Flash attention, off and on, after the prompt and deep in a context; None where only one can be."""
    present = probes.pair.models.context("base").flash_attn
    other = "off" if present == "on" or present == "auto" else "on"
    try:
        for value in (present, other):
            for role in ROLES:
                probes.of(role, flash_attn=value)
    except FitError:
        return None

    def measure(value: str) -> Measured:
        found = probes.costs(chunk, flash_attn=value)
        if probes.lengths.deep:
            deep = probes.of("base", deep=True, flash_attn=value)
            found |= {"base_token_deep": deep.token(probes.lengths.deep)}
        return found

    return Knob("flash attention", {present: present, other: other}, measure)


def chunk_knob(probes: Probes, present: int) -> Knob:
    """Tokens of the draft that are checked together."""
    others = [size for size in CHUNKS if size != present]
    return Knob(
        "check chunk",
        {str(size): size for size in [present, *others]},
        lambda size: {"check": probes.of("base").check(size)},
        shape_of=lambda size, shape: shape.with_chunk(size),
    )


def load_knob(probes: Probes, free: int) -> Knob | str:
    """How the base's file comes into memory, by the seconds that takes; or why it is not measured.

    Args:
        probes: of the pair.
        free: bytes of free memory.
    """
    models = probes.pair.models
    path, plan = models.paths["base"], models.plan
    if models.model("base").may_offload:
        return "models are on a GPU"
    if free < ROOM * path.stat().st_size:
        return "memory has no room for a second copy of the base"
    mapped = plan.placements["base"].mapped if plan is not None and "base" in plan.placements else False
    wanted = models.loading.load_mode
    present = ("mmap" if mapped else "none") if wanted == "auto" else wanted

    def measure(mode: LoadMode) -> Measured:
        begun = probes.clock()
        LlamaFile("base", path, replace(models.loading, load_mode=mode)).open(None).close()
        return {"load": probes.clock() - begun}

    return Knob(
        "load mode", {mode: mode for mode in [present, *({"mmap", "none"} - {present})]}, measure, replies=False
    )


@dataclass(frozen=True, slots=True)
class Knobs:
    """What is measured, and what is not and why."""

    measured: tuple[Knob, ...]
    left_out: Mapping[str, str]


def all_knobs(
    probes: Probes,
    chunk: int,
    drafts: Callable[[], Knob | str],
    held: Sequence[str],
    *,
    cores: int,
    free: int,
) -> Knobs:
    """The knobs of this pair on this machine.

    Args:
        probes: of the pair.
        chunk: tokens that are checked together at present.
        drafts: the knob of the draft's type, or why there is none.
        held: settings that were given, and stay as they are.
        cores: logical processors.
        free: bytes of free memory.
    """
    offloads = any(probes.pair.models.model(role).may_offload for role in ROLES)
    gpu: Callable[[], Knob | str] = lambda: "models are on a GPU"  # noqa: E731
    makers: dict[str, Callable[[], Knob | str | None]] = {
        "draft type": drafts,
        "flash attention": partial(flash_knob, probes, chunk),
        "check chunk": partial(chunk_knob, probes, chunk),
        "threads": gpu if offloads else partial(threads_knob, probes, chunk, cores),
        "prompt step": gpu if offloads else partial(ubatch_knob, probes),
        "load mode": partial(load_knob, probes, free),
    }
    measured, left_out = [], {}
    for name, make in makers.items():
        if SETTING[name] in held:
            left_out[name] = "given, so it stays"
            continue
        try:
            knob = make()
        except WsdError as error:
            knob = str(error)
        if isinstance(knob, Knob):
            measured.append(knob)
        else:
            left_out[name] = knob or "there is no other way here"
    return Knobs(tuple(measured), left_out)
