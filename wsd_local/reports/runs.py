"""Files of replies compared side by side.

Contract: reads run files and counts; no model is needed. A run file is JSON lines, each the object of
`Reply.as_dict` with whatever else stands beside it, or a prompt's `error` without a `text`. Where lines have the same
`index` and `turn`, the last one counts. Every figure is the same in whatever order the replies stand.
"""

from __future__ import annotations

import json
import math
import statistics
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from wsd_local.errors import UsageError, reason
from wsd_local.events import FinishReason, SwitchReason
from wsd_local.reports.run_shape import shape_traits
from wsd_local.system.inputs import json_value

MANY = 3
"""A setting with more values than this in one run is counted, not listed."""

MOST = 10**12
"""Larger counts and amounts are treated as damage."""

MODELS = {"draft": "draft model", "base": "base model"}
_PROVENANCE = ("version", "llama_cpp", "draft_sha256", "base_sha256", "draft_lora_sha256", "base_lora_sha256")

SHORTEST = 1e-6
"""Seconds: a rate over a shorter time is not computed."""
WIDTHS = tuple(step * 10**power for power in range(6) for step in (1, 2, 5))


@dataclass(frozen=True, slots=True)
class ReplyFigures:
    """The numbers of one reply. Tokens are base tokens, `drafted` counts draft tokens, rates are tokens per second.

    `finished_at` are seconds of the clock; None where the line does not say.
    """

    index: int | None
    reason: str
    finish: str
    kept: int
    written: int
    drafted: int
    words: int
    total_s: float
    first_text_s: float | None = None
    draft_rate: float | None = None
    base_rate: float | None = None
    finished_at: float | None = None


@dataclass(frozen=True, slots=True)
class RunFile:
    """One file. `traits` holds the values, as JSON, that each setting and model name had in it, `failed` counts prompts
    without a reply; `torn`: its last line is not whole and was left out.
    """

    name: str
    path: Path
    records: tuple[ReplyFigures, ...]
    traits: Mapping[str, frozenset[str]]
    failed: int = 0
    torn: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """One run in figures; null where none can be computed. `failed` prompts, which have no reply, count nowhere else.

    `switch_positions` are pairs of a switch position (an index of base tokens) and its number of replies, and
    `without_switch` counts the other replies. `draft_tokens` of the replies were kept from the draft, `base_tokens`
    written by the base, `drafted_tokens` (draft tokens) all that the draft wrote; `draft_share` is the part of all
    tokens that was kept from the draft. `empty` counts replies without a word. `total_s`, `mean_s` and `median_s`
    are seconds for whole replies, each counted alone, `first_text_s` the median until the first text. `wall_s` are
    the seconds in which any reply was in progress, less than `total_s` where many were at once; `tokens_per_s` is
    the run's throughput, all tokens of the replies over `wall_s`. The rates of draft and base are medians over
    replies of each reply's own rate, without prompts; of many at once, each is slower than the run.
    """

    name: str
    file: str
    replies: int
    failed: int
    draft_models: tuple[str, ...]
    base_models: tuple[str, ...]
    switch_positions: tuple[tuple[int, int], ...]
    without_switch: int
    mean_switch: float | None
    median_switch: float | None
    reasons: dict[str, int]
    finish_reasons: dict[str, int]
    draft_tokens: int
    base_tokens: int
    drafted_tokens: int
    draft_share: float | None
    mean_tokens: float | None
    empty: int
    median_words: float | None
    total_s: float
    wall_s: float
    mean_s: float | None
    median_s: float | None
    first_text_s: float | None
    draft_tokens_per_s: float | None
    base_tokens_per_s: float | None
    tokens_per_s: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


# -- reading -------------------------------------------------------------------------------------------------


def read_runs(paths: Sequence[Path]) -> list[RunFile]:
    """The files in the order given.

    Raises:
        UsageError: a file cannot be read, or a line of it is no reply.
    """
    return [read_run(path, name) for path, name in zip(paths, names(paths), strict=True)]


def names(paths: Sequence[Path]) -> list[str]:
    """A name for each file that no other one has: its stem, or its path where stems are the same."""
    stems = Counter(path.stem for path in paths)
    found: list[str] = []
    for path in paths:
        name = wanted = _encodable(path.stem if stems[path.stem] == 1 else str(path.with_suffix("")))
        number = 1
        while name in found:
            number += 1
            name = f"{wanted} ({number})"
        found.append(name)
    return found


def read_run(path: Path, name: str | None = None) -> RunFile:
    """One file; a last line without an end that is not whole is left out.

    Raises:
        UsageError: it cannot be read, or a line of it is no reply.
    """
    records: dict[object, ReplyFigures | None] = {}
    traits: dict[str, set[str]] = {}
    torn = False
    for number, line in _lines(path):
        try:
            value = _parsed(line)
        except ValueError as error:
            if line.endswith(b"\n"):
                raise UsageError(f"{path}, line {number}: is not JSON: {error}") from error
            torn = True
            break
        place = _place(value, number)
        try:
            if _has_failed(value):
                records.setdefault(place, None)
            else:
                records[place] = _record(value)
        except ValueError as error:
            raise UsageError(f"{path}, line {number}: is not a reply: {error}") from error
        for trait, of_reply in _traits(value):
            traits.setdefault(trait, set()).add(of_reply)
    replies = tuple(record for record in records.values() if record is not None)
    kept = {trait: frozenset(values) for trait, values in traits.items()}
    return RunFile(names([path])[0] if name is None else name, path, replies, kept, len(records) - len(replies), torn)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbers and bytes of the lines that are not blank."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {reason(error)}") from error


def _parsed(line: bytes) -> Any:
    return json_value(line.removeprefix(BOM_UTF8))


def _place(value: Any, number: int) -> object:
    """The key by which a later line replaces an earlier one."""
    place = (value.get("index"), value.get("turn")) if isinstance(value, dict) else ()
    return place if [type(part) for part in place] == [int, int] else number


def _has_failed(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("error"), str) and "text" not in value


def _record(value: Any) -> ReplyFigures:
    """The numbers of a reply's object. ValueError names the field that is missing or of the wrong kind."""
    draft, base = _part(value, "draft"), _part(value, "base")
    switch, timings = _part(value, "switch"), _part(value, "timings")
    return ReplyFigures(
        index=_optional_count(switch, "switch.index"),
        reason=_one_of(switch, "switch.reason", get_args(SwitchReason)),
        finish=_one_of(value, "finish_reason", get_args(FinishReason)),
        kept=_optional_count(draft, "draft.kept_tokens") or 0,
        written=_optional_count(base, "base.tokens") or 0,
        drafted=_optional_count(draft, "draft.drafted_tokens") or 0,
        words=_words(value),
        total_s=_amount(timings, "timings.total_s") or 0.0,
        first_text_s=_amount(timings, "timings.first_text_s"),
        draft_rate=_amount(timings, "timings.draft_tokens_per_s"),
        base_rate=_amount(timings, "timings.base_tokens_per_s"),
        finished_at=_amount({"finished_at": value.get("finished_at")}, "finished_at"),
    )


def _words(value: Mapping[str, Any]) -> int:
    if isinstance(text := _field(value, "text"), str):
        return len(text.split())
    raise ValueError("`text` is no text")


def _field(part: Mapping[str, Any], name: str) -> Any:
    key = name.rpartition(".")[2]
    if key not in part:
        raise ValueError(f"it has no `{name}`")
    return part[key]


def _part(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("it is no object")
    part = _field(value, name)
    if not isinstance(part, dict):
        raise ValueError(f"`{name}` is no object")
    return part


def _optional_count(part: Mapping[str, Any], name: str) -> int | None:
    value = _field(part, name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST):
        raise ValueError(f"`{name}` is no count")
    return value


def _amount(part: Mapping[str, Any], name: str) -> float | None:
    value = _field(part, name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MOST:
        raise ValueError(f"`{name}` is no amount")
    return float(value)


def _one_of(part: Mapping[str, Any], name: str, known: Sequence[str]) -> str:
    value = _field(part, name)
    if value not in known:
        raise ValueError(f"`{name}` is none of {', '.join(known)}")
    return str(value)


def _traits(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Models, versions and settings of a reply, each value as JSON."""
    for role in () if _has_failed(value) else MODELS:
        model = value[role].get("model")
        if model is not None:
            yield MODELS[role], _canonical(model)
    provenance = value.get("provenance")
    if not isinstance(provenance, dict):
        return
    for key in _PROVENANCE:
        if provenance.get(key) is not None:
            yield key, _canonical(provenance[key])
    yield from ((name, _canonical(part)) for name, part in shape_traits(value))
    settings = provenance.get("settings")
    for key, setting in settings.items() if isinstance(settings, dict) else ():
        yield _encodable(key), _canonical(setting)


def _canonical(value: Any) -> str:
    """JSON that is the same for equal values; 1 and 1.0 are equal."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _encodable(json.dumps(value, sort_keys=True, ensure_ascii=False))


def _encodable(text: str) -> str:
    """Text without half surrogate pairs, which cannot be encoded."""
    return text.encode(errors="replace").decode()


# -- arithmetic ----------------------------------------------------------------------------------------------


def summary(run: RunFile) -> Summary:
    """One run in figures."""
    records = run.records
    positions = [record.index for record in records if record.index is not None]
    kept, written = sum(record.kept for record in records), sum(record.written for record in records)
    seconds = [record.total_s for record in records]
    total_s, wall_s = math.fsum(seconds), _wall(records)
    return Summary(
        name=run.name,
        file=_encodable(str(run.path)),
        replies=len(records),
        failed=run.failed,
        draft_models=_models(run, "draft"),
        base_models=_models(run, "base"),
        switch_positions=tuple(sorted(Counter(positions).items())),
        without_switch=len(records) - len(positions),
        mean_switch=_mean(positions),
        median_switch=_median(positions),
        reasons=_counted(record.reason for record in records),
        finish_reasons=_counted(record.finish for record in records),
        draft_tokens=kept,
        base_tokens=written,
        drafted_tokens=sum(record.drafted for record in records),
        draft_share=kept / (kept + written) if kept + written else None,
        mean_tokens=(kept + written) / len(records) if records else None,
        empty=sum(not record.words for record in records),
        median_words=_median(record.words for record in records),
        total_s=total_s,
        wall_s=wall_s,
        mean_s=total_s / len(records) if records else None,
        median_s=_median(seconds),
        first_text_s=_median(record.first_text_s for record in records),
        draft_tokens_per_s=_median(record.draft_rate for record in records),
        base_tokens_per_s=_median(record.base_rate for record in records),
        tokens_per_s=(kept + written) / wall_s if wall_s >= SHORTEST else None,
    )


def _wall(records: Iterable[ReplyFigures]) -> float:
    """Seconds in which any reply was in progress; replies of unknown time count one after the other."""
    alone, spans = [], []
    for record in records:
        if record.finished_at is None:
            alone.append(record.total_s)
        else:
            spans.append((record.finished_at - record.total_s, record.finished_at))
    parts, until = alone, -math.inf
    for begun, finished in sorted(spans):
        parts.append(max(0.0, finished - max(begun, until)))
        until = max(until, finished)
    return math.fsum(parts)


def _models(run: RunFile, role: str) -> tuple[str, ...]:
    return tuple(sorted(str(json.loads(value)) for value in run.traits.get(MODELS[role], ())))


def _counted(values: Iterable[str]) -> dict[str, int]:
    """Most frequent first, then by name."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _mean(values: Sequence[int]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def differences(runs: Sequence[RunFile]) -> dict[str, list[list[Any]]]:
    """Settings and versions that are not the same in all runs that name them: the values in each run.

    What has more than `MANY` values in every one of them, such as seeds that were drawn, is left out. Models are not
    named here.
    """
    found: dict[str, list[list[Any]]] = {}
    for trait in dict.fromkeys(trait for run in runs for trait in run.traits if trait not in MODELS):
        values = [run.traits[trait] for run in runs if trait in run.traits]
        if len(set(values)) > 1 and any(len(of_run) <= MANY for of_run in values):
            found[trait] = [[json.loads(value) for value in sorted(run.traits.get(trait, ()))] for run in runs]
    return found


def bins(positions: Iterable[int], most: int) -> list[tuple[int, int]]:
    """At most `most` (2 or more) ranges of equal round width, bounds included, that hold every position."""
    known = set(positions)
    if not known:
        return []
    low, high = min(known), max(known)
    width = next((width for width in WIDTHS if high // width - low // width < most), high + 1)
    return [(number * width, (number + 1) * width - 1) for number in range(low // width, high // width + 1)]


def binned(counts: Iterable[tuple[int, int]], ranges: Sequence[tuple[int, int]]) -> list[int]:
    """Sums of counts, given with their positions, in each range."""
    pairs = list(counts)
    return [sum(count for position, count in pairs if first <= position <= last) for first, last in ranges]
