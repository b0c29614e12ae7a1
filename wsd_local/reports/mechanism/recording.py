"""What the base alone has to do with each prompt: it reads the data set's own reply, and samples openings.

Contract: a prompt's line is on the disk before the next prompt begins, and one that is there is not made again. The
aligned reply is the data set's own where it has one, else the draft's, which is recorded elsewhere; the base reads at
most `draft_max_tokens` tokens of it. Openings are sampled at temperature 1 from the base's whole distribution, after
its own prompt, with stop strings as in every reply. Their seeds follow from the one seed, the prompt's place and the
opening's number, so that a prompt has the same ones whenever it is its turn.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wsd_local.calibration.recording import OVERRIDES
from wsd_local.calibration.records import Record
from wsd_local.core.text import utf8_decoder
from wsd_local.datasets import DataSet, Item
from wsd_local.datasets.batch import made_by
from wsd_local.datasets.references import reference_of
from wsd_local.datasets.run_file import Key, RunFile
from wsd_local.errors import CancelledError, UsageError, WsdError
from wsd_local.load_settings import MOST_PARALLEL
from wsd_local.prompts.messages import Message
from wsd_local.reports.mechanism.records import DRAFT, NOTHING, BaseReading, Case, Reading
from wsd_local.reports.perplexity import after_prompt, reply_logprobs
from wsd_local.runtime.fleet import Failed, Fleet
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Finished, Reply

Prompted = Sequence[tuple[Record, list[Message]]]
"""Drafts as they are recorded, and what they answer."""

SAMPLED: Mapping[str, Any] = {
    **OVERRIDES,
    "mode": "base",
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "loop_guard": "off",
    "ignore_eos": False,
}
"""Settings of the base's own openings: its whole distribution, at temperature 1."""
_LONGEST = 4096
_SEEDS = 2**32 - 1
_LEAST = sys.float_info.min


@dataclass(frozen=True, slots=True)
class Openings:
    """How many openings the base samples for each prompt, of how many tokens at most, and the seed.

    Raises:
        UsageError: a value is outside its range.
    """

    count: int = 9
    tokens: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST_PARALLEL:
            raise UsageError(f"openings is {self.count}: it must lie between 1 and {MOST_PARALLEL}")
        if not 1 <= self.tokens <= _LONGEST:
            raise UsageError(f"opening-tokens is {self.tokens}: it counts tokens and must lie between 1 and {_LONGEST}")
        if not 0 <= self.seed < _SEEDS:
            raise UsageError(f"opening-seed is {self.seed}: it must lie between 0 and {_SEEDS - 1}")

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the base that samples them."""
        return {**SAMPLED, "max_tokens": self.tokens}

    def seed_of(self, place: Key, number: int) -> int:
        """The seed of one opening of the prompt with this index and turn."""
        name = f"{self.seed} {place[0]} {place[1]} {number}".encode()
        return int.from_bytes(hashlib.sha256(name).digest()[:8]) % _SEEDS


@dataclass(frozen=True, slots=True)
class Outcome:
    """One prompt: its line is written, or there was an error."""

    id: str
    error: WsdError | None = None


class BaseReader:
    """Works on what `file` does not have yet. `done` of `total` prompts are there.

    Args:
        pair: loaded with `Openings.settings`, its models hashed.
        data: the prompts.
        prompted: the drafts that are recorded of them.
        file: opened here for this base, these prompts, drafts and openings.
        openings: what the base samples.
        draft: the hash of the draft model, whose replies are a part of later turns.
        stopped: whether to stop.

    Raises:
        UsageError: the file was made by something else, or a line of it is not whole.
    """

    def __init__(
        self,
        pair: Pair,
        data: DataSet,
        prompted: Prompted,
        file: RunFile,
        openings: Openings,
        draft: str,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._pair, self._file, self._openings, self._stopped = pair, file, openings, stopped
        places = _places(data)
        self._prompted = [(*places[record.id], record, messages) for record, messages in prompted]
        file.begin(made_by(pair, data, None) | {"openings": asdict(openings), "draft": draft})
        self.total = len(self._prompted)
        self._readings()

    @property
    def done(self) -> int:
        """Prompts that are in the file."""
        return sum((item.index, turn) in self._file.done for item, turn, _, _ in self._prompted)

    def outcomes(self) -> Iterator[Outcome]:
        """Work on what is left.

        Raises:
            CancelledError: the work was stopped; what is written stays.
            WsdError: a line could not be written.
        """
        for item, turn, record, messages in self._prompted:
            place = (item.index, turn)
            if place in self._file.done:
                continue
            if self._stopped():
                raise CancelledError("interrupted")
            try:
                found = self._read(item, place, messages)
            except CancelledError:
                raise
            except WsdError as error:
                yield Outcome(record.id, error)
                continue
            self._file.append(place, {"id": record.id, "input": item.record, **found.as_dict()})
            yield Outcome(record.id)

    def cases(self) -> list[Case]:
        """The prompts that are in the file, in their order, with their drafts."""
        readings, piece = self._readings(), self._pair.models.model("base").piece
        return [
            case_of(place, messages, record, readings[place], self._openings.tokens, piece)
            for item, turn, record, messages in self._prompted
            if (place := (item.index, turn)) in readings
        ]

    def _read(self, item: Item, place: Key, messages: Sequence[Message]) -> BaseReading:
        own = tuple(self._sampled(messages, place))
        if (reference := reference_of(item)) is None:
            return BaseReading(DRAFT, NOTHING, own)
        source, text = reference
        most = self._pair.settings.draft_max_tokens
        tokens = tuple(after_prompt(self._pair, messages, text, most)[1])
        return BaseReading(source, Reading(text, tokens, tuple(reply_logprobs(self._pair, messages, text, most))), own)

    def _sampled(self, messages: Sequence[Message], place: Key) -> Iterator[Reading]:
        """The base's own openings, in the order of their numbers."""
        fleet: Fleet[int] = Fleet(self._pair)
        for number in range(self._openings.count):
            fleet.add(number, list(messages), whole=True, seed=self._openings.seed_of(place, number))
        found: dict[int, Reading] = {}
        with contextlib.closing(fleet.events()) as events:
            for number, event in events:
                if self._stopped():
                    raise CancelledError("interrupted")
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, Finished):
                    found[number] = _reading(event.reply)
        yield from (found[number] for number in sorted(found))

    def _readings(self) -> dict[Key, BaseReading]:
        found = {}
        for values in self._file.values():
            try:
                found[values["index"], values["turn"]] = BaseReading.of(values)
            except (KeyError, TypeError, ValueError) as error:
                where = f"{self._file.path}, record {values['index']}"
                raise UsageError(f"{where}: is no whole record ({error}); remove the line") from None
        return found


def case_of(
    place: Key,
    messages: Sequence[Message],
    draft: Record,
    reading: BaseReading,
    length: int,
    piece: Callable[[int], bytes],
) -> Case:
    """A prompt, from what is recorded of it.

    Args:
        place: index and turn of the prompt.
        messages: the conversation.
        draft: the draft's record.
        reading: what the base alone had to do with it.
        length: base tokens of an opening, at most.
        piece: the bytes of a base token.
    """
    aligned = reading.aligned
    if reading.source == DRAFT:
        aligned = Reading(draft.text, draft.tokens, draft.logprobs)
    opening = "".join(texts_of(aligned.tokens[:length], piece)).strip()
    return Case(
        place=place,
        messages=messages,
        draft=draft,
        pieces=tuple(texts_of(draft.tokens, piece)),
        continued={one.start: "".join(texts_of(one.tokens, piece)) for one in draft.continuations},
        source=reading.source,
        aligned=aligned.logprobs,
        opening=Reading(opening, aligned.tokens[:length], aligned.logprobs[:length]),
        own=reading.own,
    )


def _reading(reply: Reply) -> Reading:
    probs = [token.prob or _LEAST for token in reply.tokens]
    return Reading(reply.text.strip(), tuple(token.id for token in reply.tokens), tuple(map(math.log, probs)))


def texts_of(tokens: Sequence[int], piece: Callable[[int], bytes]) -> list[str]:
    """The text that each token adds; a character of several tokens belongs to the last of them."""
    decoder = utf8_decoder()
    found = [decoder.decode(piece(token)) for token in tokens]
    if found and (rest := decoder.decode(b"", final=True)):
        found[-1] += rest
    return found


def _places(data: DataSet) -> dict[str, tuple[Item, int]]:
    """The prompts by the names of their records."""
    return {
        item.id if not item.later else f"{item.id}, turn {turn + 1}": (item, turn)
        for item in data.items
        for turn in range(1 + len(item.later))
    }
