"""`wsd-local eval preferences`: how often a model finds the preferred reply of a pair the more probable one."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from wsd_local.cli import names, terminal
from wsd_local.cli.evaluate import Html, page_writer, show
from wsd_local.cli.judge import SETTINGS
from wsd_local.cli.options import (
    NOTHING,
    Debug,
    Given,
    Json,
    Verbose,
    flag,
    number,
    option,
    setting_values,
    settings_named,
    show_native_log,
    takes,
)
from wsd_local.cli.progress import Reporter
from wsd_local.cli.task import SOME_FAILED
from wsd_local.errors import CancelledError, FitError, UsageError
from wsd_local.system.interrupt import interruptible
from wsd_local.units import plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wsd_local.reports.preferences import PairScores
    from wsd_local.system.interrupt import Stop
    from wsd_local.training.pairs import PreferencePair
    from wsd_local.training.sources import Source

_CUTOFF = 1 << 30
"""No pair is left out for its length before its tokens are counted by the models."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceOptions:
    """Which pairs are read, and what is written."""

    pairs: Annotated[
        str,
        option(
            "Preference set: a file, a public set by name, or a folder of train prepare (its validation pairs).",
            metavar="NAME|PATH",
            completer=names.data_sets,
        ),
    ]
    limit: Annotated[int | None, number("Only the first pairs.")] = None
    quiet: Annotated[bool, flag("Show no progress.")] = False
    html: Html = None


@takes(settings=settings_named(*SETTINGS))
def preferences(
    models: Annotated[
        list[str],
        Parameter(name="MODEL [MODEL]", help="One or two instruct models by name or path.", completer=names.models),
    ],
    /,
    *,
    how: PreferenceOptions,
    as_json: Json = False,
    settings: Given = NOTHING,
    verbose: Verbose = False,
    debug: Debug = False,
) -> int:
    """Measure how often models find the preferred reply of a pair the more probable one, before and after training."""
    from wsd_local.library.gguf import look_at
    from wsd_local.library.resolve import model_path

    show_native_log(verbose)
    if len(models) > 2:
        raise UsageError(f"{plural(len(models), 'model')}: give one or two")
    if how.limit is not None and how.limit < 1:
        raise UsageError(f"limit is {how.limit}: it counts pairs and must be at least 1")
    for model in models:
        look_at(model_path(model))
    write = page_writer(how.html)
    source, pairs = _read(how)
    reporter = Reporter(how.quiet)
    with ExitStack() as stack:
        stack.callback(reporter.close)
        interrupt = stack.enter_context(interruptible())
        found = [_scored(model, pairs, settings, reporter, interrupt) for model in models]
    kept = [place for place in range(len(pairs)) if all(place in one.scores for one in found)]
    if not kept:
        raise UsageError(f"{source.path}: no pair fits into the context: there is nothing to report")
    _report(found, kept, source, as_json=as_json, write=write)
    return SOME_FAILED if len(kept) < len(pairs) else 0


def _read(how: PreferenceOptions) -> tuple[Source, Sequence[PreferencePair]]:
    """The set, and its pairs."""
    from wsd_local.cli.train import divided
    from wsd_local.paths import expanded
    from wsd_local.training.folder import check_complete
    from wsd_local.training.trainers import DATA_TRL

    data, folder = how.pairs, expanded(how.pairs)
    if folder.is_dir():
        check_complete(folder)
        file = folder / DATA_TRL / "validation.jsonl"
        if not file.is_file():
            raise UsageError(f"{folder}: was prepared without validation pairs; name a file")
        data = str(file)
    source, _, sifted, _ = divided(data, {}, cutoff=_CUTOFF, tokenizer=None, validation=0.0, seed=0)
    left = sum(len(found.indices) for found in sifted.left_out.values())
    if left:
        terminal.message(f"{data}: {plural(left, 'record')} left out; wsd-local train prepare shows which and why")
    return source, sifted.pairs[: how.limit]


@dataclass(frozen=True, slots=True)
class _Found:
    """A model, and the scores of the pairs that fit into its context, by their places."""

    name: str
    sha256: str | None
    scores: Mapping[int, PairScores]


def _scored(
    model: str, pairs: Sequence[PreferencePair], settings: Given, reporter: Reporter, interrupt: Stop
) -> _Found:
    from wsd_local.config import read_config
    from wsd_local.library.naming import name_of
    from wsd_local.reports.preferences import scores_of
    from wsd_local.runtime.pair import load

    def loading(_role: Any, fraction: float) -> bool:
        reporter.wait(f"loading {model}: {fraction:.0%}")
        return not interrupt.requested

    configured = {name: value for name, value in read_config().settings.items() if name in SETTINGS}
    values = {**configured, **setting_values(settings)}
    scores: dict[int, PairScores] = {}
    too_long: dict[int, FitError] = {}
    with load(draft=model, mode="draft", progress=loading, **values) as pair:
        pair.models.hash_files(None)
        interrupt.on_request(pair.models.cancellation.set)
        name = name_of(pair.models.model("draft"))
        with reporter.counting("pair", len(pairs), 0) as tick:
            for place, one in enumerate(pairs):
                try:
                    scores[place] = scores_of(pair.models, one)
                except FitError as error:
                    too_long[place] = error
                tick(place + 1)
                if interrupt.requested:
                    raise CancelledError("interrupted")
        if too_long:
            place, why = next(iter(too_long.items()))
            terminal.message(f"{name}: left out: {plural(len(too_long), 'pair')}; the first is pair {place + 1}: {why}")
        return _Found(name, pair.models.hashes.get("draft"), scores)


def _report(found: Sequence[_Found], kept: Sequence[int], source: Source, *, as_json: bool, write: Any) -> None:
    from dataclasses import asdict

    from wsd_local.cli.tables import print_json
    from wsd_local.reports.preferences import preferences as measured
    from wsd_local.reports.preferences_page import preference_page, preference_tables

    results = measured([one.name for one in found], [[one.scores[place] for place in kept] for one in found])
    lead = [f"{one.name}, SHA-256 {one.sha256}" for one in found]
    lead.append(f"Pairs: {source.path.name}, SHA-256 {source.sha256}")
    write(lambda: preference_page(results, len(kept), lead))
    if not as_json:
        show(preference_tables(results, len(kept)))
        return
    print_json(
        {
            "pairs": {"file": str(source.path), "sha256": source.sha256, "count": len(kept)},
            **results.as_dict(),
            "sha256": [one.sha256 for one in found],
            "scores": [
                {"model": one.name, "pair": place + 1, **asdict(one.scores[place])} for one in found for place in kept
            ],
        }
    )
