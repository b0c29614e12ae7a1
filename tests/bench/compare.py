"""Our speed beside that of other programs over the same files, in one run.

    tests/bench/build_peers.sh FOLDER
    python tests/bench/compare.py --draft FILE --base FILE [--peers FOLDER] [--prompts 200,1000] [--tokens 256]
        [--repeat 3] [--threads 2] [--flash-attn auto] [--clock wall] [--again 0] [--only SECTION,…] [--json FILE]
        [--markdown FILE]

Sections (all, if none is named; `reply` is always measured where another one is compared with it, by `passes` anew):

    reply        the whole WSD reply, against the sum of its parts (`parts`), and against
    base         the base alone, through our engine
    first        time to the first text, ours and the base alone's, some times in turns
    lockstep     the reply again, each of its evaluations beside the same one by llama.cpp's calls alone
    proposals    the same reply with speculative continuation
    passes       the three passes written plainly (three_passes.py), the draft running to its 512 tokens, and to 256;
                 as many of them are kept as in our reply
    completion   llama-completion, base alone
    server       llama-server, base alone, streaming, no cached prompt: time to the first token
    speculative  llama-speculative-simple, --speculative-draft with the base's vocabulary (default: --draft)
    bench        llama-bench, against our prefill and decode in the same shapes; with our attention, and its default
    loop         the calls of llama-bench in our process, step by step in turns with ours, the same attention
    session      the tenth turn of a conversation against the second
    memory       growth of resident memory against weights and KV caches
    start        --help, and the first text of the embedded pair, from cold processes

Contract: every program reads the same prompt (its tokens are counted) with the same number of threads, and models are
loaded before anything is timed. Programs take turns within each repetition, in the other order in every second one, and
quotients are taken within it. Replies ignore the end of text, so that all have `--tokens` base tokens; ours take one
evaluation per token. Without `--drafted` the switch comes where the models agree. What was measured is in the JSON file
after each step, with the seconds that it took and the share that went elsewhere; Ctrl-C prints what there is.

`--again 4` measures a section again, up to four times, if too much of the processors' time went to other programs or to
the host of a virtual machine meanwhile, and keeps the quietest: what is kept depends on that share and never on the
figure. With the wall clock only.

`--clock processor` counts the processor's time instead: what a shared machine gives to others does not count. It needs
--threads 1 and no GPU, and leaves out what other programs would have to measure of themselves.

What peers are asked: llama-bench its own `avg_ts` of one repetition after its warm-up; llama-completion its perf
print, where "prompt eval time" is the time to the first token and "total time" the whole, both without loading and
warm-up; llama-speculative-simple "encoded … in" plus "decoded … in", the latter scaled from the tokens it decoded to
those wanted, as it stops after a round; llama-server the time from the request to the first chunk with text.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import three_passes as plain
from bench.clocks import CLOCKS, add_clock, require_one_thread
from bench.native_loop import beside, in_lockstep, native_loop
from bench.peers import PeerError, Peers

from wsd_local import files
from wsd_local.config import PREFIX
from wsd_local.reports.bench import Bench, cycled
from wsd_local.reports.contention import QUIET, Watch
from wsd_local.reports.figures import (
    COLUMNS,
    MEMORY,
    PARTS,
    WHOLE,
    Comparison,
    Figures,
    Row,
    about_proposals,
    rows,
    sums,
)
from wsd_local.reports.measurement import SESSION, about, memory
from wsd_local.runtime.pair import Pair, load

PER_PROMPT = (
    *("reply", "parts", "lockstep", "base", "first", "proposals"),
    *("passes", "completion", "server", "speculative"),
)
ONCE = ("memory", "bench", "loop", "session", "start")
OWN = {"reply", "parts", "lockstep", "base", "first", "proposals", "passes", "memory", "loop", "session"}
"""Sections that are measured in this process, by any clock."""
DRAFTS = (512, 256)
"""Draft tokens of the three passes."""
SHAPE = (512, 128)
"""Prompt, and tokens written, of llama-bench."""
IN_TURNS = (128, 128)
"""The same, step by step in turns: shorter, so that a machine that changes changes less between two turns."""
STARTS = 5
FIRSTS = 5

REPLY_TABLE = (
    *PARTS,
    *WHOLE,
    Comparison("first text, in turns", "first_in_turns_s", "s", "base alone", "base_first_in_turns_s", 0.4),
    Comparison("whole reply", "lockstep_reply_s", "s", "its evaluations by llama.cpp alone", "lockstep_native_s", 1.03),
    Comparison("whole reply", "before_512_s", "s", "three passes, draft of 512 tokens", "passes_512_s", 0.5),
    Comparison("whole reply", "before_256_s", "s", "three passes, draft of 256 tokens", "passes_256_s", 0.65),
    Comparison("whole reply", "before_same_s", "s", "three passes, the same draft", "passes_same_s"),
    Comparison("first text", "first_text_s", "s", "three passes of 512: nothing before all is there", "passes_512_s"),
    Comparison("whole reply", "reply_s", "s", "llama-completion, base alone", "completion_s"),
    Comparison("base alone, our engine", "base_s", "s", "llama-completion, base alone", "completion_s"),
    Comparison("first text", "first_text_s", "s", "llama-completion, prompt read", "completion_first_s"),
    Comparison("first text", "first_text_s", "s", "llama-server, base alone", "server_first_s"),
    Comparison("first text of the base alone", "base_first_text_s", "s", "llama-server, base alone", "server_first_s"),
    Comparison("whole reply with proposals", "speculative_s", "s", "base alone, our engine", "base_s"),
    Comparison("whole reply", "reply_s", "s", "llama-speculative-simple", "peer_speculative_s"),
    Comparison("base alone, our engine", "base_s", "s", "llama-speculative-simple", "peer_speculative_s"),
)
ONCE_TABLE = (
    Comparison("base reads 512 tokens", "base_pp_rate", "tokens/s", "llama-bench pp512", "peer_pp_rate", 0.98, True),
    Comparison("base writes 128 tokens", "base_tg_rate", "tokens/s", "llama-bench tg128", "peer_tg_rate", 0.98, True),
    Comparison("base reads 512 tokens", "base_pp_rate", "tokens/s", "its default attention", "peer_default_pp_rate"),
    Comparison("base writes 128 tokens", "base_tg_rate", "tokens/s", "its default attention", "peer_default_tg_rate"),
    Comparison("base reads 128 tokens", "own_pp_rate", "tokens/s", "its calls in turns", "loop_pp_rate", 0.98, True),
    Comparison("base writes 128 tokens", "own_tg_rate", "tokens/s", "its calls in turns", "loop_tg_rate", 0.98, True),
    *SESSION,
    *MEMORY,
    Comparison("wsd-local --help", "help_s", "s", goal=0.25),
    Comparison("wsd-local run, first text of the embedded pair", "cold_first_text_s", "s", goal=1.5),
)


# -- our command -----------------------------------------------------------------------------------------------


def starts() -> Figures:
    """Seconds of the help, and until the first text of the embedded pair, from cold processes: medians of some."""
    script = Path(sys.executable).with_name("wsd-local")
    command = [str(script)] if script.exists() else [sys.executable, "-m", "wsd_local"]
    asked = [*command, "run", "How do I boil an egg?", "--pair", "demo"]
    _first_byte(asked)  # a file that is new is looked at once
    return {
        "help_s": statistics.median(_first_byte([*command, "--help"], whole=True) for _ in range(STARTS)),
        "cold_first_text_s": statistics.median(_first_byte(asked) for _ in range(STARTS)),
    }


def _first_byte(command: list[str], *, whole: bool = False) -> float:
    """Seconds until the first byte of a command's standard output, where it is ended, or until it has ended itself."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environment |= {f"{PREFIX}CONFIG": os.devnull}
    begun, null = time.perf_counter(), subprocess.DEVNULL
    with subprocess.Popen(command, stdin=null, stdout=subprocess.PIPE, stderr=null, env=environment) as run:
        assert run.stdout is not None
        first = os.read(run.stdout.fileno(), 1)
        seconds = time.perf_counter() - begun
        if whole:
            run.stdout.read()
        else:
            run.kill()
    if not first:
        raise PeerError(f"{' '.join(command)} wrote nothing")
    return time.perf_counter() - begun if whole else seconds


def first_texts(bench: Bench) -> Figures:
    """Seconds to the first text of a short reply, and of the base alone: medians of some, in turns."""
    found: dict[str, list[float]] = {"wsd": [], "base": []}
    for turn in range(FIRSTS):
        for mode in ("wsd", "base")[:: -1 if turn % 2 else 1]:
            first = bench.answer(mode=mode, max_tokens=bench.chunk)[1].timings.first_text_s
            assert first is not None
            found[mode].append(first)
    own, base = (statistics.median(found[mode]) for mode in ("wsd", "base"))
    return {"first_in_turns_s": own, "base_first_in_turns_s": base}


# -- the three passes ------------------------------------------------------------------------------------------


class Plain:
    """The three passes, models loaded and touched once."""

    def __init__(self, asked: argparse.Namespace, n_ctx: int) -> None:
        draft, base, threads, gpu_layers = asked.draft, asked.base, asked.threads, asked.gpu_layers
        self._clock = CLOCKS[asked.clock]
        self.draft, self.base = (
            plain.load(path, n_ctx=n_ctx, threads=threads, gpu_layers=gpu_layers, logits_all=path == base)
            for path in (draft, base)
        )
        for model in (self.draft, self.base):
            model.eval([model.token_bos()] * 8)

    def answer(self, bench: Bench) -> Figures:
        """Our reply, and then the same conversation with a draft of so many tokens, or of those that the bench forces.

        As many of them are kept as in our reply: a draft that must not end may never make the base confident.
        """
        never = plain.never(bench.pair.models.model("draft").eog_tokens)
        figures: Figures = {}
        for draft_tokens in DRAFTS if bench.drafted is None else (bench.drafted,):
            seconds, reply = bench.answer(drafted=bench.drafted)
            passes = plain.three_passes(
                self.draft,
                self.base,
                [{"role": message["role"], "content": message["content"]} for message in bench.messages],
                keep=reply.draft.tokens,
                draft_max_tokens=draft_tokens,
                max_tokens=bench.tokens,
                ignore_eos=True,
                draft_bias=never,
                stops=(),
                clock=self._clock,
            )
            which = draft_tokens if bench.drafted is None else "same"
            figures |= {f"before_{which}_s": seconds, f"passes_{which}_s": passes.total_s}
            for name in ("draft_s", "score_s", "continue_s", "draft_tokens", "score_tokens", "continue_tokens"):
                figures[f"passes_{which}_{name}"] = getattr(passes, name)
        return figures

    def close(self) -> None:
        """Free both models."""
        self.draft.close()
        self.base.close()


# -- one run ---------------------------------------------------------------------------------------------------


@dataclass
class Store:
    """All that was measured: a list of repetitions for each prompt length, and one for what depends on none."""

    path: Path | None
    about: dict[str, Any]
    repetitions: dict[str, list[Figures]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    sections: list[dict[str, Any]] = field(default_factory=list)
    """What was measured, in this order: seconds, and the share of the processors' time that went elsewhere."""

    def add(self, group: str, repetition: int, figures: Figures) -> None:
        """Keep figures, and write the file."""
        found = self.repetitions.setdefault(group, [])
        while len(found) <= repetition:
            found.append({})
        found[repetition].update(figures)
        if self.path is not None:
            files.write_text(self.path, json.dumps(self.as_dict(), indent=1) + "\n")

    def tables(self) -> list[tuple[str, list[Row]]]:
        """A table for each prompt length, and one for the rest."""
        tables = []
        for group, found in self.repetitions.items():
            title = f"Prompt of {group} tokens, reply of {self.about['tokens']}" if group != ANY else "Any prompt"
            tables.append((title, rows(found, ONCE_TABLE if group == ANY else REPLY_TABLE)))
        return [table for table in tables if table[1]]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        tables = {title: [row.as_dict() for row in found] for title, found in self.tables()}
        return {
            "about": self.about,
            "tables": tables,
            "repetitions": self.repetitions,
            "failed": self.failed,
            "sections": self.sections,
        }


ANY = "any"


class Compare:
    """One run over `pair`, section by section."""

    def __init__(self, asked: argparse.Namespace, pair: Pair, resident: tuple[int, Callable[[], int]]) -> None:
        self._asked = asked
        self._pair = pair
        self._resident = resident
        self._only = set(asked.only)
        self._peers = Peers(asked.peers, asked.base, asked.threads, asked.gpu_layers)
        self._benches = {
            length: Bench(
                pair, prompt_tokens=length, tokens=asked.tokens, drafted=asked.drafted, clock=CLOCKS[asked.clock]
            )
            for length in map(int, asked.prompts.split(","))
        }
        self._plain: Plain | None = None
        about = {"asked": {name: str(value) for name, value in vars(asked).items()}, "tokens": asked.tokens}
        self.store = Store(asked.json, about)

    def run(self) -> None:
        """Measure all; the store grows."""
        try:
            for repetition in range(self._asked.repeat):
                self._once(repetition)
                for length in self._benches:
                    self._reply(repetition, length)
        finally:
            if self._plain is not None:
                self._plain.close()

    def _measure(self, group: str, repetition: int, name: str, measured: Callable[[], Figures]) -> Figures:
        if name not in self._only:
            return {}
        least = math.inf
        figures: Figures = {}
        for attempt in range(1 + (self._asked.again if self._asked.clock == "wall" else 0)):
            _say(f"repetition {repetition + 1}, {name}, prompt {group}{', again' * (attempt > 0)} …")
            begun, watch = time.monotonic(), Watch()
            try:
                found = measured()
            except PeerError as error:
                if figures:  # an earlier attempt has them
                    break
                self._only.discard(name)
                self.store.failed.append(f"{name}: {error}")
                _say(f"  left out from here on: {error}")
                return {}
            took, told = time.monotonic() - begun, " ".join(f"{key} {value:.4g}" for key, value in found.items())
            share = watch.elsewhere().share if took >= 1 else 0.0  # ticks are too long to tell of shorter ones
            _say(f"  {told} ({took:.0f} s, {share:.1%} elsewhere)")
            if share < least:
                least, figures = share, found
                section = {"name": name, "prompt": group, "repetition": repetition, "s": took, "elsewhere": share}
            if share <= QUIET:
                break
        self.store.sections.append(section | {"attempts": attempt + 1})
        self.store.add(group, repetition, figures)
        return figures

    def _once(self, repetition: int) -> None:
        first = next(iter(self._benches.values()))
        if repetition == 0:
            first.warm()
            before, now = self._resident
            self._measure(ANY, 0, "memory", lambda: memory(self._pair.models.plan, before, now()))
            self.store.about |= {"pair": about(first), "flash_attn": self._pair.models.context("base").flash_attn}
            self._measure(ANY, 0, "start", starts)
        flash_attn = self._pair.models.context("base").flash_attn
        order = [lambda: first.shapes("base", *SHAPE), lambda: self._peers.bench(*SHAPE, flash_attn)]
        for measured in order if repetition % 2 == 0 else order[::-1]:
            self._measure(ANY, repetition, "bench", measured)
        self._measure(ANY, repetition, "loop", lambda: self._beside(first, turned=repetition % 2 == 1))
        self._measure(ANY, repetition, "session", first.turns)

    def _reply(self, repetition: int, length: int) -> None:
        bench, group = self._benches[length], str(length)
        prompt, tokens = bench.prompts["base"], self._asked.tokens
        if not self._only & set(PER_PROMPT):
            return
        if self._only & set(PER_PROMPT) - {"first", "lockstep", "passes"}:
            self._only.add("reply")
        sections: dict[str, Callable[[], Figures]] = {
            "parts": bench.parts,
            "reply": bench.whole,
            "base": bench.alone,
            "proposals": bench.proposals,
            "first": lambda: first_texts(bench),
            "lockstep": lambda: self._lockstep(length),
        }
        found: Figures = {}
        for name in list(sections)[:: -1 if repetition % 2 else 1]:
            found |= self._measure(group, repetition, name, sections[name])
        if {"check_token_s", "reply_s"} <= found.keys():
            self.store.add(group, repetition, sums(found, found))
        self.store.about.setdefault("prompts", {})[group] = about(bench)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "prompt.txt"
            file.write_bytes(self._pair.models.base_format.prompt(bench.messages).encode())
            size = len(prompt)
            draft = self._asked.speculative_draft or self._asked.draft
            self._measure(group, repetition, "completion", lambda: self._peers.completion(file, size, tokens))
            self._measure(group, repetition, "speculative", lambda: self._peers.speculative(draft, file, size, tokens))
        self._measure(group, repetition, "server", lambda: self._served(prompt))
        if repetition < self._asked.passes_repeat:
            self._measure(group, repetition, "passes", lambda: self._passes(bench))

    def _beside(self, bench: Bench, *, turned: bool) -> Figures:
        context, (read, written) = self._pair.models.context("base"), IN_TURNS
        tokens = cycled(bench.prompts["base"], read)
        with native_loop(context, read + written, self._asked.threads) as loop:
            return beside(context, loop, tokens, written, CLOCKS[self._asked.clock], turned=turned)

    def _lockstep(self, length: int) -> Figures:
        asked = self._asked
        return in_lockstep(
            self._pair, CLOCKS[asked.clock], asked.threads, prompt=length, tokens=asked.tokens, drafted=asked.drafted
        )

    def _served(self, prompt: list[int]) -> Figures:
        with self._peers.server(len(prompt) + 64) as ask:
            ask(prompt[:8])
            return ask(prompt)

    def _passes(self, bench: Bench) -> Figures:
        if self._plain is None:
            asked = self._asked
            longest = max(len(prompt) for one in self._benches.values() for prompt in one.prompts.values())
            n_ctx = longest + max(*DRAFTS, asked.tokens) + 64
            self._plain = Plain(asked, n_ctx)
        return self._plain.answer(bench)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# -- what is printed -------------------------------------------------------------------------------------------


def text_of(title: str, found: list[Row]) -> str:
    """A table for a terminal."""
    lines = [COLUMNS, *(row.cells() for row in found)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(COLUMNS))]
    shown = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join([title, "", *shown])


def markdown_of(title: str, found: list[Row]) -> str:
    """The same for a document."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(row.cells() for row in found)]
    return "\n".join([f"### {title}", "", *("| " + " | ".join(line) + " |" for line in lines)])


def notes(store: Store) -> list[str]:
    """What a reader must know of the tables."""
    said = []
    for group, described in store.about.get("prompts", {}).items():
        reply, prompt = described["reply"], described["prompt_tokens"]
        told = ", ".join(f"{name.removesuffix('_tokens')} {value}" for name, value in (reply or {}).items())
        said.append(f"Prompt {group}: {prompt['draft']} draft tokens, {prompt['base']} base tokens; reply: {told}.")
        said += about_proposals(store.repetitions[group])
    shares = [section["elsewhere"] for section in store.sections if section["s"] >= 1]
    if shares and store.about["asked"]["clock"] == "wall":
        noisy = " Too much for figures to be relied on." if statistics.median(shares) > QUIET else ""
        said.append(
            f"Of the processors' time, {statistics.median(shares):.0%} went elsewhere while something was measured "
            f"(median; at most {max(shares):.0%}).{noisy}"
        )
    if "pair" in store.about:
        described = store.about["pair"]
        said.append(
            f"Load mode: {described['load_mode']}; threads: {described['threads']}; flash attention of the base: "
            f"{store.about['flash_attn']}."
        )
    return [*said, *(f"Left out: {line}" for line in store.failed)]


def parsed() -> argparse.Namespace:
    """Arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draft", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--peers", type=Path, help="folder of build_peers.sh; without, only our own sections")
    parser.add_argument("--speculative-draft", type=Path, help="for llama-speculative-simple: the base's vocabulary")
    parser.add_argument("--prompts", default="200,1000", help="base tokens, one table each")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--drafted", type=int, help="force a draft of so many draft tokens")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--passes-repeat", type=int, default=1, help="of these, with the three passes, which take long")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--flash-attn", choices=("auto", "on", "off"), default="auto", help="of our contexts")
    add_clock(parser)
    parser.add_argument(
        "--again", type=int, default=0, help=f"times while over {QUIET:.0%} went elsewhere; the quietest counts"
    )
    parser.add_argument("--gpu-layers", type=int, default=0, help="of every program: 0 none, -1 all")
    parser.add_argument("--ctx", type=int)
    parser.add_argument("--only", help=f"sections, with commas: {', '.join((*PER_PROMPT, *ONCE))}")
    parser.add_argument("--json", type=Path, help="file for all figures, written after each step")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    asked = parser.parse_args()
    require_one_thread(parser, asked.clock, asked.threads, asked.gpu_layers)
    possible = [*PER_PROMPT, *ONCE]
    if asked.clock == "processor":
        possible = [name for name in possible if name in OWN]
    elif asked.peers is None:
        possible = [name for name in possible if name in {*OWN, "start"}]
    asked.only = asked.only.split(",") if asked.only else possible
    if unknown := set(asked.only) - set(possible):
        parser.error(f"{min(unknown)} cannot be measured; with these clock and peers: {', '.join(possible)}")
    return asked


def main() -> None:
    """Measure, print, and leave files."""
    asked = parsed()
    process = psutil.Process()
    before = process.memory_info().rss
    loading: dict[str, Any] = {"threads": asked.threads, "ctx": asked.ctx, "flash_attn": asked.flash_attn}
    if asked.gpu_layers:
        loading["n_gpu_layers"] = asked.gpu_layers
    with ExitStack() as stack:
        pair = stack.enter_context(load(draft=asked.draft, base=asked.base, **loading))
        compare = Compare(asked, pair, (before, lambda: int(process.memory_info().rss)))
        try:
            compare.run()
        except KeyboardInterrupt:
            _say("interrupted: what was measured until then")
    tables, said = compare.store.tables(), notes(compare.store)
    print("\n\n".join(text_of(*table) for table in tables), *said, sep="\n", end="\n")
    if asked.markdown is not None:
        files.write_text(asked.markdown, "\n\n".join([*(markdown_of(*table) for table in tables), *said]) + "\n")


if __name__ == "__main__":
    main()
