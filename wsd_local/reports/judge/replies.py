"""Replies to be judged: read from files of runs, and matched by prompt.

Contract: a line is what `wsd-local run` writes, with `index`, `turn`, `id`, `messages` and `text`. Nothing is guessed:
two files are compared only if they hold one reply to each prompt, to the same prompts, in the same places. Answers that
a model gave in earlier turns are its own and may differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsd_local.errors import UsageError
from wsd_local.files import file_sha256
from wsd_local.prompts.messages import Message, conversation
from wsd_local.system.inputs import decoded, json_value, read_bytes
from wsd_local.units import plural

Place = tuple[int, int]
"""A record's place in the input of its run and a turn of it, both from 0."""

LARGEST = 1 << 30
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Judged:
    """A reply to be judged: the conversation up to it, and its text."""

    id: str
    messages: tuple[Message, ...]
    text: str

    @property
    def talk(self) -> list[Message]:
        """The conversation with the reply as its last message, after a beginning that was supplied."""
        before, beginning = list(self.messages), ""
        if before and before[-1]["role"] == "assistant":
            beginning = before.pop()["content"]
        return [*before, Message(role="assistant", content=beginning + self.text)]

    @property
    def asked(self) -> list[Message]:
        """What others than the models contributed."""
        return [message for message in self.messages if message["role"] != "assistant"]


@dataclass(frozen=True, slots=True)
class ReplyFile:
    """The replies of a file, by place, in the order of the places; `failed` are places without a reply."""

    path: Path
    sha256: str
    replies: Mapping[Place, Judged]
    failed: frozenset[Place] = frozenset()

    @property
    def empty(self) -> int:
        """How many replies are empty or white space."""
        return sum(not reply.text.strip() for reply in self.replies.values())


def read_replies(path: Path) -> ReplyFile:
    """The replies in a file of a run.

    Raises:
        UsageError: it cannot be read, or holds something else, or two replies to one prompt.
    """
    replies: dict[Place, Judged] = {}
    failed: set[Place] = set()
    for number, line in enumerate(decoded(read_bytes(path, LARGEST), str(path)).split("\n"), 1):
        if not line.strip():
            continue
        try:
            place, reply = _reply(json_value(line))
        except (ValueError, UsageError) as error:
            raise UsageError(
                f"{path}, line {number}: is not a reply of a run: {error}; give what `wsd-local run --output` wrote"
            ) from error
        if reply is None:
            failed.add(place)
        elif place in replies:
            raise UsageError(f"{path}, line {number}: {_named(place, reply)} is there twice; leave one of them out")
        else:
            replies[place] = reply
    if not replies:
        raise UsageError(f"{path}: there is no reply in it")
    return ReplyFile(path, file_sha256(path), dict(sorted(replies.items())), frozenset(failed - replies.keys()))


def shared_places(files: Sequence[ReplyFile], *, partial: bool = False) -> list[Place]:
    """The places of which all of one or two files have a reply; with `partial` others are left out, else an error.

    Raises:
        UsageError: a prompt is in one file only, or differs, or none is in both.
    """
    first, second = files[0], files[-1]
    both = [place for place in first.replies if place in second.replies]
    if not partial:
        _require_all(first, second)
        _require_all(second, first)
    if not both:
        raise UsageError(f"{first.path} and {second.path} have no prompt in common")
    differing = [place for place in both if not _same_prompt(first.replies[place], second.replies[place])]
    if differing:
        shown = _several(differing, first)
        raise UsageError(f"{first.path} and {second.path} have different prompts in {shown}; compare runs of one input")
    return both


def chosen_places(places: Sequence[Place], limit: int | None) -> list[Place]:
    """The places of the first `limit` records, all of them without a limit.

    Raises:
        UsageError: the limit is less than 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}: it counts prompts and must be at least 1")
    records = set(sorted({index for index, _ in places})[:limit])
    return [place for place in places if place[0] in records]


def _same_prompt(one: Judged, other: Judged) -> bool:
    return one.id == other.id and one.asked == other.asked


def _require_all(one: ReplyFile, other: ReplyFile) -> None:
    """Raise `UsageError` if a file lacks a reply that the first one has."""
    missing = [place for place in one.replies if place not in other.replies]
    if missing:
        gone = sum(place in other.failed for place in missing)
        failed = f" ({plural(gone, 'record')} failed there)" if gone else ""
        raise UsageError(
            f"{other.path}: has no reply to {_several(missing, one)}, which {one.path} has{failed}; run the same "
            "prompts, or give --common to compare only what both have"
        )


def _several(places: Sequence[Place], file: ReplyFile) -> str:
    more = len(places) - _NAMED
    names = ", ".join(_named(place, file.replies[place]) for place in places[:_NAMED])
    return names + (f" and {more} more" if more > 0 else "")


def _named(place: Place, reply: Judged) -> str:
    turn = f", turn {place[1] + 1}" if place[1] else ""
    return f"record {reply.id}{turn}"


def _reply(value: Any) -> tuple[Place, Judged | None]:
    """A line's place, and its reply unless the record failed. ValueError names what is wrong."""
    if not isinstance(value, dict):
        raise ValueError("it is no object")
    place = []
    for name in ("index", "turn"):
        number = value.get(name)
        if type(number) is not int or number < 0:
            raise ValueError(f"it has no `{name}`")
        place.append(number)
    where = (place[0], place[1])
    if isinstance(value.get("error"), str) and "text" not in value:
        return where, None
    if not isinstance(value.get("text"), str):
        raise ValueError("it has no `text`")
    if not isinstance(value.get("messages"), list):
        raise ValueError("it has no `messages`")
    name = value.get("id", place[0])
    return where, Judged(str(name), tuple(conversation(value["messages"])), _encodable(value["text"]))


def _encodable(text: str) -> str:
    """Text without half surrogate pairs, which no model can read."""
    return text.encode(errors="replace").decode()
