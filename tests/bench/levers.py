"""What could make the program faster, tried one by one against what it does now, side by side in one run.

    python tests/bench/levers.py --draft FILE --base FILE [--threads 2] [--repeat 3] [--only NAME,…] [--tokens 512]
        [--role draft] [--json FILE] [--markdown FILE]

Contract: an experiment is a function that yields rows and remarks. The variants of one experiment take turns in each
repetition, beginning with another one each time. A row's value is the median over the repetitions; its ratio is the
median of the quotients by the default's value in the same repetition, with the lowest and the highest. All values are
costs (seconds, milliseconds, MiB, tokens), so a ratio below 1 is a gain. Nothing of the program is changed: native
parameters that it does not offer are set on their way to llama.cpp.

`--clock processor` is for experiments with reading, decoding and checking alone. `--tokens` is the length of the long
prompts; the other sizes follow from it. What can be tried on one model alone is tried on that of `--role`. The default
sizes take about 10 minutes for a 1B draft and a 3B base on two cores.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import llama_cpp

from wsd_local.core.resources import ROWS, LoadMode

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.clocks import CLOCKS, Clock, add_clock, require_one_thread

import wsd_local as wsd
from wsd_local.core.contexts import Question
from wsd_local.core.sampling import Sampling
from wsd_local.errors import FitError
from wsd_local.events import Source
from wsd_local.llama import Cancellation, Context, ContextOptions, Model, Sampler
from wsd_local.paths import demo_dir
from wsd_local.reports.bench import next_token
from wsd_local.reports.demo import MEASURED_GROUP, load_questions
from wsd_local.runtime.loading import roles_of
from wsd_local.units import MIB

CHUNK = 8
CHUNKS = (CHUNK, 4, 12, 16, 32)
BATCHES = (1, 2, 4, 8, 16, 32)
UBATCHES = (32, 64, 128, 256, 512)
MANY_ROWS = 512
QUESTIONS = 3
"""Questions whose replies are timed: where the switch falls within a chunk differs from one to the other."""
SAMPLES = 50
BY_ANY_CLOCK = {"flash_attn", "cache_type", "n_ubatch", "batches", "sampling"}
BEFORE = 32
"""Tokens that stand before a batch that is checked."""

Costs = dict[tuple[str, str], float]
"""What a trial measured: values by what they are and their unit."""
Trial = Callable[[], Costs]


@dataclass(frozen=True, slots=True)
class Row:
    """One measured quantity of one variant, a value for each repetition. No `ratios`: the default has no such value."""

    lever: str
    variant: str
    measure: str
    unit: str
    values: tuple[float, ...]
    ratios: tuple[float, ...]
    default: bool

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def cells(self) -> tuple[str, ...]:
        """Texts of a table's row."""
        return self.lever, self.variant, self.measure, short(self.value), self.unit, self._ratio

    @property
    def _ratio(self) -> str:
        if self.default:
            return "default"
        if not self.ratios:
            return ""
        return f"{statistics.median(self.ratios):.2f} ({min(self.ratios):.2f}–{max(self.ratios):.2f})"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "lever": self.lever,
            "variant": self.variant,
            "measure": self.measure,
            "unit": self.unit,
            "value": self.value,
            "ratio": statistics.median(self.ratios) if self.ratios else None,
            "default": self.default,
            "values": self.values,
            "ratios": self.ratios,
        }


HEADINGS = ("lever", "variant", "measure", "value", "unit", "ratio to default")
WIDTHS = (12, 22, 34, 9, 9, 0)
Found = Iterator[Row | str]


def short(value: float) -> str:
    """About three digits, never an exponent."""
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{0 if value == int(value) else digits}f}"


# -- what is tried on ------------------------------------------------------------------------------------------------


class Probe(Context):
    """A context whose `native` parameters can be set, and that can keep what its only sequence holds in a file."""

    def __init__(self, model: Model, options: ContextOptions, native: Mapping[str, int] | None = None) -> None:
        with native_parameters(native or {}):
            super().__init__(model, options, Cancellation())

    @property
    def n_ubatch(self) -> int:
        """Tokens that llama.cpp evaluates together."""
        return int(llama_cpp.llama_n_ubatch(self._handle))

    def natively(self, row: int, chain: Any) -> int:
        """What a native sampler chooses."""
        return int(llama_cpp.llama_sampler_sample(chain, self._handle, row))

    def save(self, path: Path) -> None:
        """Write tokens and KV cache to a file."""
        held = self._mirrors[0]
        tokens = (llama_cpp.llama_token * len(held))(*held)
        if not llama_cpp.llama_state_seq_save_file(self._handle, str(path).encode(), 0, tokens, len(held)):
            raise OSError(f"{path}: not written")

    def restore(self, path: Path) -> None:
        """Hold what a file holds."""
        tokens = (llama_cpp.llama_token * self.n_ctx)()
        count = ctypes.c_size_t()
        read = llama_cpp.llama_state_seq_load_file(
            self._handle, str(path).encode(), 0, tokens, len(tokens), ctypes.byref(count)
        )
        if not read:
            raise OSError(f"{path}: not read")
        self._mirrors[0] = list(tokens[: count.value])


@contextmanager
def native_parameters(values: Mapping[str, int]) -> Iterator[None]:
    """Set native parameters of the contexts that are made meanwhile, on their way to llama.cpp."""
    make = llama_cpp.llama_init_from_model

    def changed(model: Any, params: Any) -> Any:
        for name, value in values.items():
            if not hasattr(params, name):  # ctypes takes any name without a word
                raise AttributeError(f"there is no context parameter {name}")
            setattr(params, name, value)
        return make(model, params)

    with patch.object(llama_cpp, "llama_init_from_model", changed):
        yield


@dataclass(frozen=True)
class Bench:
    """A loaded pair and the sizes of the experiments. `role` is the model that a setting of one context is tried on."""

    pair: wsd.Pair
    threads: int
    repeat: int
    tokens: int
    role: Source
    clock: Clock

    @property
    def decoded(self) -> int:
        """Tokens that are decoded one by one after a long prompt."""
        return max(4, self.tokens // 32)

    @cached_property
    def questions(self) -> list[str]:
        """Held-out questions of the embedded pair that need no conversation before them."""
        asked = load_questions(demo_dir() / "questions.jsonl")
        return [question.question for question in asked if question.group == MEASURED_GROUP]

    def text(self, role: Source, count: int) -> list[int]:
        """So many tokens of plain text."""
        tokens = self.pair.models.model(role).tokenize_text(" ".join(self.questions)[: 16 * count])
        return (tokens * (count // len(tokens) + 1))[:count]

    def probe(
        self, stack: ExitStack, role: Source | None = None, native: Mapping[str, int] | None = None, **options: Any
    ) -> Probe:
        """A context of its own, closed with `stack`; `options` are those of `ContextOptions`."""
        n_ctx = self.tokens + max(128, self.decoded)
        chosen = ContextOptions(**({"n_ctx": n_ctx, "threads": self.threads} | options))
        probe = stack.enter_context(closing(Probe(self.pair.models.model(role or self.role), chosen, native)))
        probe.read(0, self.text(role or self.role, 8))  # the first evaluation reserves memory
        return probe

    def compared(self, lever: str, trials: Mapping[str, Trial], default: str) -> Iterator[Row]:
        """Rows of all variants, each tried once in each repetition."""
        names = list(trials)
        found: dict[str, list[Costs]] = {name: [] for name in names}
        for repetition in range(self.repeat):
            first = repetition % len(names)
            for name in names[first:] + names[:first]:
                found[name].append(trials[name]())
        for name in names:
            for measure, unit in found[name][0]:
                values = tuple(costs[measure, unit] for costs in found[name])
                usual = [costs.get((measure, unit), 0.0) for costs in found[default]]
                ratios = tuple(value / other for value, other in zip(values, usual, strict=True) if other)
                yield Row(lever, name, measure, unit, values, ratios, name == default)

    def contexts_compared(self, lever: str, variants: Mapping[str, Mapping[str, Any]], default: str) -> Found:
        """Reading and decoding speed of contexts that differ in options or native parameters."""
        trials: dict[str, Trial] = {}
        with ExitStack() as stack:
            for name, options in variants.items():
                try:
                    trials[name] = partial(speed, self, self.probe(stack, **options))
                except FitError as error:
                    yield f"{lever} {name}: cannot be had: {error}"
            yield from self.compared(lever, trials, default)


def seconds(work: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Seconds that a piece of work takes."""
    begun = clock()
    work()
    return clock() - begun


def speed(bench: Bench, probe: Probe) -> Costs:
    """A long prompt read at once, and after it single tokens and a chunk to check."""
    tokens = bench.text(bench.role, bench.tokens + bench.decoded)
    probe.forget(0)
    prefill = seconds(lambda: probe.read(0, tokens[: bench.tokens]), bench.clock)
    decode = seconds(lambda: one_by_one(probe, tokens, bench.tokens), bench.clock)
    chunk = [*tokens[: bench.tokens], *tokens[:CHUNK]]
    check = seconds(lambda: probe.logprobs(0, chunk, bench.tokens + 1), bench.clock)
    return {
        (f"prefill of {bench.tokens}", "s"): prefill,
        (f"decode after {bench.tokens}", "ms/token"): 1000 * decode / bench.decoded,
        (f"check of {CHUNK} after {bench.tokens}", "ms"): 1000 * check,
    }


def one_by_one(context: Context, tokens: list[int], start: int) -> None:
    """Evaluate `tokens[start:]` each on its own."""
    for end in range(start, len(tokens)):
        context.read(0, tokens[: end + 1])


# -- experiments -----------------------------------------------------------------------------------------------------


def check_chunk(bench: Bench) -> Found:
    """Whole replies with nothing in the caches."""
    trials = {str(chunk): partial(replies, bench, chunk) for chunk in CHUNKS}
    waits: dict[str, dict[str, float]] = {}
    for row in bench.compared("check_chunk", trials, str(CHUNK)):
        if row.measure.startswith("question"):
            waits.setdefault(row.measure, {})[row.variant] = row.value
        else:
            yield row
    best = sum(min(each.values()) for each in waits.values())
    usual = sum(each[str(CHUNK)] for each in waits.values())
    yield f"check_chunk: until the switch, with the best one for each question, {best / usual:.2f} of that with {CHUNK}"


def replies(bench: Bench, chunk: int) -> Costs:
    """Sums over the replies to a few questions, and for each question the time until its switch."""
    costs: Costs = {}
    for number, question in enumerate(bench.questions[:: len(bench.questions) // QUESTIONS][:QUESTIONS]):
        for role in roles_of("wsd"):
            bench.pair.models.context(role).forget(0)
        tokens = max(8, bench.tokens // 8)
        reply = bench.pair.reply(question, check_chunk=chunk, max_tokens=tokens, speculation="off")
        timings, counts = reply.timings, reply.counts
        switch_s = timings.switch_s or timings.total_s
        seen: Costs = {
            ("replies", "s"): timings.total_s,
            ("until the switch", "s"): switch_s,
            ("drafted", "tokens"): counts.drafted_tokens,
            ("checked", "tokens"): counts.checked_tokens,
            ("kept", "tokens"): reply.draft.tokens,
            ("in all", "tokens"): len(reply.tokens),
        }
        costs |= {key: costs.get(key, 0.0) + value for key, value in seen.items()}
        costs[f"question {number}", "s"] = switch_s
    return costs


def batches(bench: Bench) -> Found:
    """Checking: tokens in one batch and a row of logits of each, against one token."""
    for role in roles_of("wsd"):
        with ExitStack() as stack:
            probe = bench.probe(stack, role)
            trials = {f"{role}, {size}": partial(checked, bench, probe, role, size) for size in BATCHES}
            yield from bench.compared("batches", trials, f"{role}, 1")


def checked(bench: Bench, probe: Probe, role: Source, size: int) -> Costs:
    """Best of three."""
    tokens = bench.text(role, BEFORE + size)
    times = []
    for _ in range(3):
        probe.read(0, tokens[:BEFORE])
        times.append(seconds(lambda: probe.logprobs(0, tokens, BEFORE + 1), bench.clock))
    return {("check", "ms/token"): 1000 * min(times) / size}


def together(bench: Bench) -> Found:
    """The base reads its prompt while the draft reads its own and writes: two contexts in two Python threads."""
    half, native = max(1, bench.threads // 2), {"n_ubatch": ubatch(bench)}
    with ExitStack() as stack:
        whole = bench.probe(stack, "draft"), bench.probe(stack, "base")
        halves = tuple(bench.probe(stack, role, native, threads=half) for role in roles_of("wsd"))
        trials: dict[str, Trial] = {
            f"in turn, {bench.threads} threads": partial(opening, bench, whole, 1),
            f"together, {half} each": partial(opening, bench, halves, 2),
            f"together, {bench.threads} each": partial(opening, bench, whole, 2),
        }
        yield from bench.compared("together", trials, f"in turn, {bench.threads} threads")


def opening(bench: Bench, probes: tuple[Probe, ...], workers: int) -> Costs:
    """Seconds until the draft has written its first tokens, until the base has read its prompt, and until both."""
    length = max(8, bench.tokens // 8)
    prompts = {role: bench.text(role, length) for role in roles_of("wsd")}
    draft, base = probes
    draft.forget(0)
    base.forget(0)
    begun = time.perf_counter()

    def write() -> float:
        tokens, sampler = prompts["draft"], Sampler(Sampling(), draft.model)
        for _ in range(bench.decoded):
            tokens = [*tokens, next_token(draft, tokens, sampler)]
        return time.perf_counter() - begun

    def read() -> float:
        base.read(0, prompts["base"])
        return time.perf_counter() - begun

    with ThreadPoolExecutor(workers) as pool:
        ends = [future.result() for future in (pool.submit(write), pool.submit(read))]
    return {
        (f"{bench.decoded} draft tokens written", "s"): ends[0],
        (f"base prompt of {length} read", "s"): ends[1],
        ("both", "s"): max(ends),
    }


def flash_attn(bench: Bench) -> Found:
    """Flash attention."""
    yield from bench.contexts_compared("flash_attn", {value: {"flash_attn": value} for value in ("on", "off")}, "on")


def cache_type(bench: Bench) -> Found:
    """The types of cached keys and values, with flash attention, which quantised values need."""
    kinds = ("f16", "q8_0", "f32")
    variants = {kind: {"cache_type_k": kind, "cache_type_v": kind, "flash_attn": "on"} for kind in kinds}
    yield from bench.contexts_compared("cache_type", variants, "f16")


def threads(bench: Bench) -> Found:
    """Threads for single tokens and for batches; llama.cpp could have a number for each."""
    numbers = sorted({1, 2, bench.threads})
    native = {"n_ubatch": ubatch(bench)}
    variants = {str(number): {"threads": number, "native": native} for number in numbers}
    best: dict[str, Row] = {}
    for found in bench.contexts_compared("threads", variants, str(bench.threads)):
        yield found
        if isinstance(found, Row) and (found.measure not in best or found.value < best[found.measure].value):
            best[found.measure] = found
    yield "threads: fastest " + ", ".join(f"{measure}: {row.variant}" for measure, row in best.items())


def ubatch(bench: Bench) -> int:
    """Tokens that llama.cpp evaluates together in the program as it is."""
    with ExitStack() as stack:
        return bench.probe(stack).n_ubatch


def n_ubatch(bench: Bench) -> Found:
    """Tokens that llama.cpp evaluates together; a stop waits for one matrix product over them."""
    default = ubatch(bench)
    variants = {str(size): {"native": {"n_ubatch": size}} for size in sorted({default, *UBATCHES})}
    yield from bench.contexts_compared("n_ubatch", variants, str(default))


def rows(bench: Bench) -> Found:
    """Rows of logits that a context has room for, in a process of its own; a long text is checked in such pieces."""
    count = max(ROWS + 8, bench.tokens // 4)
    path = bench.pair.models.paths[bench.role]
    variants = {str(number): number for number in (ROWS, MANY_ROWS)}
    trials: dict[str, Trial] = {
        name: partial(apart, path, "none", bench.threads, bench.text(bench.role, count), bench.decoded, number)
        for name, number in variants.items()
    }
    for row in bench.compared("rows", trials, str(ROWS)):
        if not row.measure.startswith("load"):
            yield row


def sampling(bench: Bench) -> Found:
    """Choosing a token greedily from one row of logits."""
    with ExitStack() as stack:
        probe = bench.probe(stack)
        sampler = Sampler(Sampling(), probe.model)
        living: list[int] = []
        tokens = bench.text(bench.role, 8)
        probe.ask(Question(0, tokens, len(tokens) - 1, lambda _, row: living.append(row)))
        choices: dict[str, Callable[[], int]] = {
            "numpy argmax": partial(probe.sample, living[0], sampler),
            "native chain": partial(probe.natively, living[0], stack.enter_context(greedy_chain())),
        }
        trials = {name: partial(chosen, choose, bench.clock) for name, choose in choices.items()}
        yield from bench.compared("sampling", trials, "numpy argmax")


def chosen(choose: Callable[[], int], clock: Clock) -> Costs:
    """Milliseconds for one choice."""
    return {("greedy choice", "ms"): 1000 * statistics.median(seconds(choose, clock) for _ in range(SAMPLES))}


@contextmanager
def greedy_chain() -> Iterator[Any]:
    """llama.cpp's own greedy sampler, freed at the end."""
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_greedy())
    try:
        yield chain
    finally:
        llama_cpp.llama_sampler_free(chain)


def prepare(bench: Bench) -> Found:
    """Reading the conversation before its next turn, in the time in which a person reads."""
    session = bench.pair.session()
    session.send(bench.questions[0], max_tokens=max(8, bench.tokens // 5), ignore_eos=True)
    held = {role: list(bench.pair.models.context(role).held(0)) for role in roles_of("wsd")}

    def turn(prepared: bool) -> Costs:
        for role, tokens in held.items():
            bench.pair.models.context(role).read(0, tokens)  # as the first turn left it
        fork = session.fork()
        before: Costs = {("read meanwhile", "s"): seconds(fork.prepare)} if prepared else {}
        timings = fork.send(bench.questions[1], max_tokens=8).timings
        return {
            ("first text of the second turn", "s"): timings.first_text_s or math.nan,
            ("tokens read and drafted then", "tokens"): timings.draft_evaluated_tokens,
            **before,
        }

    trials = {"without": partial(turn, False), "prepared": partial(turn, True)}
    yield from bench.compared("prepare", trials, "without")


def prompt_file(bench: Bench) -> Found:
    """A system prompt kept in a file."""
    tokens = bench.text(bench.role, min(500, bench.tokens))
    ready = (f"system prompt of {len(tokens)} ready", "s")
    following: set[int] = set()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        probe, path = bench.probe(stack), Path(folder) / "prompt.bin"
        sampler = Sampler(Sampling(), probe.model)

        def evaluated() -> Costs:
            probe.forget(0)
            read = seconds(lambda: probe.read(0, tokens))
            saved = seconds(lambda: probe.save(path))
            following.add(next_token(probe, [*tokens, tokens[0]], sampler))
            return {ready: read, ("file written", "s"): saved, ("file", "MiB"): path.stat().st_size / MIB}

        def restored() -> Costs:
            probe.forget(0)
            read = seconds(lambda: probe.restore(path))
            following.add(next_token(probe, [*tokens, tokens[0]], sampler))
            return {ready: read}

        evaluated()
        yield from bench.compared("prompt_file", {"evaluated": evaluated, "from a file": restored}, "evaluated")
    yield f"prompt_file: the next token is {'the same' if len(following) == 1 else 'NOT the same'} both ways"


def load_mode(bench: Bench) -> Found:
    """How the file comes into memory, in a process of its own. The file is in the page cache."""
    path = bench.pair.models.paths[bench.role]
    modes: tuple[LoadMode, ...] = ("none", "mmap")
    tokens = bench.text(bench.role, 8)
    trials: dict[str, Trial] = {
        mode: partial(apart, path, mode, bench.threads, tokens, bench.decoded, ROWS) for mode in modes
    }
    apart(path, "none", bench.threads, tokens, 1, ROWS)
    for row in bench.compared("load_mode", trials, "none"):
        if not row.measure.startswith(("prefill", "check")):
            yield row


def apart(path: Path, mode: LoadMode, n_threads: int, tokens: list[int], decoded: int, n_rows: int) -> Costs:
    """`life_of` a model in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(life_of, path, mode, n_threads, tokens, decoded, n_rows).result()


def life_of(path: Path, mode: LoadMode, n_threads: int, tokens: list[int], decoded: int, n_rows: int) -> Costs:
    """Load a model, read tokens, check them, decode some more; then look at the memory."""
    before = resident()
    begun = time.perf_counter()
    with Model(path, load_mode=mode) as model:
        loaded = time.perf_counter() - begun
        options = ContextOptions(n_ctx=len(tokens) + decoded + 8, n_rows=n_rows, threads=n_threads)
        with closing(Context(model, options, Cancellation())) as context:
            prefill = seconds(lambda: context.read(0, tokens))
            context.forget(0)
            check = seconds(lambda: context.logprobs(0, tokens, 1))
            decode = seconds(lambda: one_by_one(context, tokens + tokens[:1] * decoded, len(tokens)))
            after = resident()
    costs: Costs = {
        ("load", "s"): loaded,
        (f"prefill of {len(tokens)}", "s"): prefill,
        (f"check of {len(tokens)}", "s"): check,
        ("decode", "ms/token"): 1000 * decode / decoded,
    }
    for name, size in after.items():
        costs[f"memory taken ({name})", "MiB"] = (size - before[name]) / MIB
    return costs


def resident() -> dict[str, int]:
    """Bytes of this process in memory, those of them that are no file's, and all that it has reserved.

    Nothing where the system does not tell.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return {name: 1024 * int(fields[name][0]) for name in ("VmRSS", "RssAnon", "VmSize") if name in fields}


EXPERIMENTS: dict[str, Callable[[Bench], Found]] = {
    function.__name__: function
    for function in (
        check_chunk,
        batches,
        together,
        flash_attn,
        cache_type,
        threads,
        n_ubatch,
        rows,
        sampling,
        prepare,
        prompt_file,
        load_mode,
    )
}


# -- output ----------------------------------------------------------------------------------------------------------


def tell(cells: tuple[str, ...]) -> None:
    """Print a line of the table at once."""
    print("  ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)).rstrip(), flush=True)


def markdown(table: list[Row], remarks: list[str]) -> str:
    """The table for the documentation."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(row.cells for row in table)]
    rows = ["| " + " | ".join(cells) + " |" for cells in lines]
    return "\n".join([*rows, "", *(f"- {remark}" for remark in remarks), ""])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draft")
    parser.add_argument("--base")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", default=",".join(EXPERIMENTS), help="some of " + ", ".join(EXPERIMENTS))
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--role", choices=("draft", "base"), default="draft")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    add_clock(parser)
    asked = parser.parse_args()
    require_one_thread(parser, asked.clock, asked.threads)
    asked.only = asked.only.split(",")
    if asked.clock == "processor" and (other := set(asked.only) - BY_ANY_CLOCK):
        parser.error(f"{min(other)} goes by the clock on the wall; --clock processor is for {', '.join(BY_ANY_CLOCK)}")
    if unknown := [name for name in asked.only if name not in EXPERIMENTS]:
        parser.error(f"there is no experiment {unknown[0]!r}; known are {', '.join(EXPERIMENTS)}")
    return asked


def main() -> None:
    asked = arguments()
    table: list[Row] = []
    remarks: list[str] = []
    took: dict[str, dict[str, float]] = {}
    tell(HEADINGS)
    with wsd.load(draft=asked.draft, base=asked.base, threads=asked.threads, ctx=1024) as pair:
        bench = Bench(pair, asked.threads, asked.repeat, asked.tokens, cast(Source, asked.role), CLOCKS[asked.clock])
        pair.reply(bench.questions[0], max_tokens=8)  # the first evaluations reserve memory
        for name in asked.only:
            begun = time.perf_counter()
            for found in EXPERIMENTS[name](bench):
                if isinstance(found, Row):
                    table.append(found)
                    tell(found.cells)
                else:
                    remarks.append(found)
                    print(found, flush=True)
            took[name] = {"seconds": round(time.perf_counter() - begun, 1), "load": round(os.getloadavg()[0], 2)}
            print(f"{name}: {took[name]['seconds']} s, load {took[name]['load']}", file=sys.stderr, flush=True)
            if asked.json is not None:
                asked.json.write_text(json.dumps(report(asked, pair, table, remarks, took), indent=1))
            if asked.markdown is not None:
                asked.markdown.write_text(markdown(table, remarks))


def report(
    asked: argparse.Namespace,
    pair: wsd.Pair,
    table: list[Row],
    remarks: list[str],
    took: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """For JSON. `took`: seconds of each experiment, and the load during it; above the threads, others worked too."""
    return {
        "models": {role: path.name for role, path in pair.models.paths.items()},
        "llama_cpp": llama_cpp.__version__,
        "threads": asked.threads,
        "repeat": asked.repeat,
        "tokens": asked.tokens,
        "role": asked.role,
        "took": took,
        "rows": [row.as_dict() for row in table],
        "remarks": remarks,
    }


if __name__ == "__main__":
    main()
