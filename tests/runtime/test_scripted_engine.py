"""The engine over contexts that are no llama.cpp: whatever keeps the protocol serves it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import EOG, STOPS, Pair, Plain, ScriptedContext, Signal, Words, bounds, plain_answer

from wsd_local.core.contexts import StopSignal, TokenContext, TokenSampler
from wsd_local.core.costs import Costs, Experience
from wsd_local.core.decoding import Decoding, Phase
from wsd_local.core.limits import Limits
from wsd_local.core.rules import Window
from wsd_local.core.speculation import Speculator
from wsd_local.errors import WsdError
from wsd_local.events import Event, Reading, Source, Text
from wsd_local.runtime.engine import Engine
from wsd_local.runtime.job import Job
from wsd_local.runtime.proposals import SpeculativeProposals

WORDS = [" the", " fox", "the", " is", " quick", "\n\n", "[User]", "fox "]
PROMPT = "\n\n[User]\nhi\n\n[Assistant]\n"


class Free(Costs):
    """Every evaluation costs the same, so as many proposals as there may be are made."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    known = True

    def saw(self, tokens: int, seconds: float) -> None:
        pass

    def of(self, tokens: int) -> float:
        return self._seconds


class Both(Words):
    """A vocabulary that can translate too."""

    n_vocab = 256 + len(WORDS)

    def tokenize_text(self, text: str) -> list[int]:
        return self.tokenize(text)


class Stage:
    """A draft that says `draft` and a base that continues with `follows`, in contexts of their own."""

    def __init__(self, draft: str, follows: str, *, n_batch: int = 7, fails: tuple[int, ...] = ()) -> None:
        self.vocabulary = Both(WORDS)
        self.draft = self.vocabulary.tokenize(draft)
        self.follows = self.vocabulary.tokenize(follows)
        self.draft_prompt = self.vocabulary.tokenize("ask: ")
        self.machine: Decoding
        self.contexts: dict[Source, TokenContext] = {
            "draft": ScriptedContext(self.vocabulary, self._drafted, n_batch=n_batch, fails=fails),
            "base": ScriptedContext(self.vocabulary, self._written, n_batch=n_batch),
        }
        self.signal: StopSignal = Signal()
        self.engine = Engine(lambda role: self.contexts[role], self.signal)

    def _drafted(self, tokens: Sequence[int]) -> int:
        at = len(tokens) - len(self.draft_prompt)
        return self.draft[at] if at < len(self.draft) else EOG

    def _written(self, tokens: Sequence[int]) -> int:
        at = len(tokens) - self.machine.prompt_length - self.machine.kept_tokens
        return self.follows[at] if at < len(self.follows) else EOG

    def job(self, window: int, threshold: float, limits: Limits, *, proposals: bool = False) -> Job:
        self.machine = Decoding(self.vocabulary, PROMPT, Window(window, threshold), limits)
        sampler: TokenSampler = Plain()
        job = Job(self.machine, sampler, sampler, draft_tokens=list(self.draft_prompt))
        if proposals:
            experience = Experience(costs={"draft": Free(0.01), "base": Free(1.0)})
            length = self.machine.prompt_length
            base = self.vocabulary
            speculator = Speculator(experience, "base", base, base, self.draft_prompt, length)
            job.proposals = SpeculativeProposals(speculator, self.machine, "base", sampler, sampler)
        return job


@settings(max_examples=150, deadline=None)
@given(
    draft=st.lists(st.sampled_from(WORDS), max_size=20).map("".join),
    follows=st.lists(st.sampled_from(WORDS), max_size=20).map("".join),
    window=st.integers(1, 6),
    threshold=st.sampled_from([0.0, 0.5, 0.7, 0.9, 2.0]),
    max_tokens=st.sampled_from([3, 12, 2048]),
    n_batch=st.sampled_from([1, 7, 512]),
    proposals=st.booleans(),
)
def test_the_engine_gives_the_plain_answer(
    draft: str, follows: str, window: int, threshold: float, max_tokens: int, n_batch: int, proposals: bool
) -> None:
    stage = Stage(draft, follows, n_batch=n_batch)
    limits = bounds(max_tokens=max_tokens, check_chunk=3, stops=STOPS)
    job = stage.job(window, threshold, limits, proposals=proposals)
    shown = "".join(event.text for event in stage.engine.drive(job) if isinstance(event, Text))
    base = Pair([], stage.follows)
    answer = plain_answer(stage.vocabulary, PROMPT, draft, base, window, threshold, max_tokens)
    machine = job.decoding
    found = (machine.switch_index, machine.switch_reason, machine.text, machine.finish_reason)
    assert found == (answer.index, answer.reason, answer.text, answer.finish)
    assert shown == machine.text


@pytest.mark.parametrize(("n_batch", "prompt"), [(100, 250), (100, 199), (512, 250), (50, 200)])
def test_a_long_prompt_is_reported_from_batch_to_batch(n_batch: int, prompt: int) -> None:
    stage = Stage("the fox", " is quick", n_batch=n_batch)
    job = stage.job(6, 0.8, bounds(stops=STOPS))
    job.names = {"draft": "weak", "base": "strong"}
    job.draft_tokens[:] = stage.draft_prompt = stage.draft_prompt * (prompt // len(stage.draft_prompt) + 1)
    del job.draft_tokens[prompt:], stage.draft_prompt[prompt:]
    events: list[Event] = []
    between = []
    for event in stage.engine.drive(job):
        events.append(event)
        if isinstance(event, Reading):
            between.append(len(stage.contexts["draft"].held(0)))
    steps = [min(done, prompt) for done in range(n_batch, prompt + n_batch, n_batch)]
    is_reported = prompt >= 200 and n_batch < prompt
    assert events[: len(between)] == [Reading("weak", done, prompt) for done in steps if is_reported]
    assert between == (steps if is_reported else [])
    assert not any(isinstance(event, Reading) for event in events[len(between) :])


@pytest.mark.parametrize("after", [1, 3, 8, 15])
def test_a_stop_between_evaluations_can_be_gone_on_with(after: int) -> None:
    draft, follows = "the fox is quick" * 3, " is the fox" * 4
    whole = Stage(draft, follows)
    expected = whole.job(3, 0.9, bounds(stops=STOPS))
    list(whole.engine.drive(expected))
    stage = Stage(draft, follows)
    job = stage.job(3, 0.9, bounds(stops=STOPS), proposals=True)
    assert isinstance(stage.signal, Signal)
    for _ in range(after):
        assert stage.engine.advance([job])
    stage.signal.given = True
    list(stage.engine.drive(job))
    assert job.decoding.phase is not Phase.DONE
    list(stage.engine.drive(job))
    assert (job.decoding.text, job.decoding.switch_index) == (expected.decoding.text, expected.decoding.switch_index)


def test_a_draft_that_fails_while_it_proposes_is_done_without() -> None:
    plain = Stage("the fox", " is the fox" * 3)
    expected = plain.job(2, 2.0, bounds(stops=STOPS))
    list(plain.engine.drive(expected))
    needed = plain.contexts["draft"]
    assert isinstance(needed, ScriptedContext)
    stage = Stage("the fox", " is the fox" * 3, fails=(needed.evaluations + 2,))
    job = stage.job(2, 2.0, bounds(stops=STOPS), proposals=True)
    list(stage.engine.drive(job))
    failing = stage.contexts["draft"]
    assert isinstance(failing, ScriptedContext)
    assert failing.evaluations == needed.evaluations + 2  # never used again
    assert job.decoding.text == expected.decoding.text
    again = Stage("the fox", " is", fails=(2,))
    with pytest.raises(WsdError, match="scripted"):
        list(again.engine.drive(again.job(2, 2.0, bounds(stops=STOPS))))
