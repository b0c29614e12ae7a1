"""`wsd-local eval reward`: replies scored by a reward model."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from wsd_local.cli import names, terminal
from wsd_local.cli.evaluate import Html, page_writer, show
from wsd_local.cli.options import Debug, Json, Verbose, flag, number, option, show_native_log
from wsd_local.cli.progress import Reporter
from wsd_local.cli.task import SOME_FAILED
from wsd_local.errors import CancelledError, UsageError
from wsd_local.system.interrupt import interruptible
from wsd_local.units import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from wsd_local.reports.judge.replies import Place, ReplyFile
    from wsd_local.reports.judge.reward import RewardModel
    from wsd_local.system.interrupt import Stop


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class RewardOptions:
    """Which replies are scored, by what."""

    model: Annotated[
        str,
        option(
            "The reward model or reranker, a GGUF file with a ranking head, by name or path.",
            metavar="NAME|PATH",
            completer=names.models,
        ),
    ]
    limit: Annotated[int | None, number("Score only the first prompts.")] = None
    common: Annotated[bool, flag("Leave out prompts that only one of the files has a reply to.")] = False
    ctx: Annotated[int | None, number("Context in tokens; a whole conversation must fit.")] = None
    threads: Annotated[int | None, number("CPU threads.")] = None
    n_gpu_layers: Annotated[int, number("Layers on GPUs, -1 for all.")] = -1
    quiet: Annotated[bool, flag("Show no progress.")] = False
    html: Html = None


def reward(
    replies: Annotated[list[Path], Parameter(name="A.jsonl B.jsonl", help="One or two files of replies.")],
    /,
    *,
    how: RewardOptions,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> int:
    """Score replies by a reward model, and count how often the first file's reply has the higher score."""
    from wsd_local.reports.judge.replies import chosen_places, read_replies, shared_places
    from wsd_local.reports.judge.reward import reward_model

    show_native_log(verbose)
    if len(replies) > 2:
        raise UsageError(f"{plural(len(replies), 'file')} of replies: give one or two")
    for name, value in (("ctx", how.ctx), ("threads", how.threads)):
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}: it must be at least 1")
    files = dict(zip("ab", map(read_replies, replies), strict=False))
    places = chosen_places(shared_places(list(files.values()), partial=how.common), how.limit)
    if how.html is not None and any(how.html.exists() and how.html.samefile(path) for path in replies):
        raise UsageError(f"{how.html}: is one of the files of replies; choose another file for the page")
    write = page_writer(how.html)
    reporter = Reporter(how.quiet)
    with ExitStack() as stack:
        stack.callback(reporter.close)
        interrupt = stack.enter_context(interruptible())
        reporter.wait("loading the reward model")
        loaded = stack.enter_context(
            reward_model(how.model, ctx=how.ctx, threads=how.threads, n_gpu_layers=how.n_gpu_layers)
        )
        interrupt.on_request(loaded.stop)
        scores, long = _scored(loaded, files, places, reporter, interrupt)
    if not scores:
        raise UsageError("no reply was scored: there is nothing to report")
    _report(_Result(loaded.name, loaded.sha256, files, places, scores, long), as_json=as_json, write=write)
    return SOME_FAILED if long else 0


@dataclass(frozen=True, slots=True)
class _Result:
    """Scores of files, by the names `a` and `b`, and how many replies did not fit."""

    model: str
    sha256: str
    files: Mapping[str, ReplyFile]
    places: Sequence[Place]
    scores: Mapping[tuple[str, Place], float]
    too_long: int


def _report(result: _Result, *, as_json: bool, write: Callable[[Callable[[], str]], None]) -> None:
    from wsd_local.cli.tables import print_json
    from wsd_local.reports.judge.page import score_page, score_tables
    from wsd_local.reports.judge.reward import better, lines, mean_score
    from wsd_local.reports.runs import names as names_of

    files, scores = result.files, result.scores
    called = names_of([file.path for file in files.values()])
    found = {name: mean_score(scores, which, result.places) for name, which in zip(called, files, strict=True)}
    means = {name: one for name, one in found.items() if one is not None}
    wins = better(scores, result.places)
    about = (means, {} if wins is None else {" against ".join(called): wins}, result.model)
    lead = [f"Reward model: {result.model}, SHA-256 {result.sha256}."]
    lead += [f"{file.path}, SHA-256 {file.sha256}" for file in files.values()]
    write(lambda: score_page(*about, lead))
    if not as_json:
        show(score_tables(*about))
        return
    print_json(
        {
            "model": {"model": result.model, "sha256": result.sha256},
            "inputs": {which: {"file": str(file.path), "sha256": file.sha256} for which, file in files.items()},
            "means": {name: asdict(one) for name, one in means.items()},
            "better": None if wins is None else asdict(wins),
            "too_long": result.too_long,
            "scores": [line for which, file in files.items() for line in lines(file, which, scores)],
        }
    )


def _scored(
    model: RewardModel, files: Mapping[str, ReplyFile], places: Sequence[Place], reporter: Reporter, interrupt: Stop
) -> tuple[dict[tuple[str, Place], float], int]:
    """The scores, and how many replies did not fit."""
    from wsd_local.reports.judge.verdicts import TooLongError

    scores: dict[tuple[str, Place], float] = {}
    long = 0
    total = len(places) * len(files)
    with reporter.counting("reply", total, 0) as tick:
        for place in places:
            for which, file in files.items():
                reply = file.replies[place]
                try:
                    scores[which, place] = model.score(reply)
                except TooLongError as error:
                    long += 1
                    terminal.message(f"{file.path}: record {reply.id}: {error}")
                tick(len(scores) + long)
                if interrupt.requested:
                    raise CancelledError("interrupted")
    if long:
        reporter.report(f"{plural(long, 'reply')} too long for the model: not scored, nothing was cut")
    return scores, long
