"""`wsd-local run`: a prompt and its reply, or a data set and its replies."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from wsd_local.cli import terminal
from wsd_local.cli.app import COMMANDS, group
from wsd_local.cli.options import (
    NOTHING,
    DataSetOptions,
    Debug,
    Given,
    Verbose,
    models_named,
    models_of,
    setting_values,
    settings_without,
    show_native_log,
    takes,
)
from wsd_local.errors import CancelledError, UsageError, WsdError
from wsd_local.fields import declared, spelled
from wsd_local.system.interrupt import interruptible

if TYPE_CHECKING:
    from wsd_local.cli.output import Printer
    from wsd_local.events import Source
    from wsd_local.prompts.templates import Template
    from wsd_local.runtime.pair import Pair
    from wsd_local.runtime.reply import Reply
    from wsd_local.system.interrupt import Stop


app = group("run", COMMANDS["run"][1], usage="Usage: wsd-local run [OPTIONS] [PROMPT]")
app.command("wsd_local.cli.merge:merge", name="merge", help="Join the files of shards of a data set into one.")


@dataclass(frozen=True, slots=True)
class PromptOptions:
    """Where the prompt comes from."""

    file: Path | None = None
    """Read the prompt from a file."""
    messages: Path | None = None
    """JSON list of messages; the prompt, if any, follows them."""
    system: str | None = None
    """System message."""


@dataclass(frozen=True, slots=True)
class ReplyOptions:
    """How the reply is shown, and how long it may take."""

    json: bool = False
    """Print one JSON object."""
    tokens: bool = False
    """JSON with every token and its probability."""
    trace: bool = False
    """Show which model wrote what, and a summary line."""
    timeout: float | None = None
    """Stop after this many seconds; the text up to there stays."""

    def __post_init__(self) -> None:
        if self.timeout is not None and not 0 < self.timeout <= threading.TIMEOUT_MAX:
            raise UsageError(f"timeout is {self.timeout}: it counts seconds and must be more than 0 and finite")

    @property
    def as_json(self) -> bool:
        """Whether the reply is printed as JSON."""
        return self.json or self.tokens


@app.default
@takes(
    source=declared(PromptOptions).values(),
    shown=declared(ReplyOptions).values(),
    data=declared(DataSetOptions).values(),
    models=models_named("pair", "draft", "base", "base_format"),
    settings=settings_without("probabilities", "parallel"),
)
def run(
    prompt: Annotated[str | None, Parameter(help="The prompt. Standard input follows it, if there is any.")] = None,
    /,
    *,
    source: Given = NOTHING,
    shown: Given = NOTHING,
    data: Given = NOTHING,
    models: Given = NOTHING,
    settings: Given = NOTHING,
    verbose: Verbose = False,
    debug: Debug = False,
) -> int:
    """Answer a prompt or a data set."""
    from wsd_local.config import read_config

    options, where = ReplyOptions(**shown), PromptOptions(**source)
    _require_of_one_kind(shown, data)
    conversation = _conversation(prompt, where) if "input" not in data else []
    show_native_log(verbose)
    config = read_config()
    chosen = models_of(models)
    pair = models.get("pair", config.pair)
    values = {**config.settings_of(pair, models), **setting_values(settings)} | {"probabilities": options.tokens}
    if "input" not in data:
        _answer_prompt(conversation, options, pair, chosen, values)
        return 0
    if prompt is not None or where.file is not None or where.messages is not None:
        raise UsageError("--input and a prompt are given: leave one out")
    from wsd_local.cli.dataset import answer_data
    from wsd_local.cli.task import DataSetTask

    parallel = {"parallel": config.settings["parallel"]} if "parallel" in config.settings else {}
    wanted = DataSetOptions(**{**parallel, **data})
    return answer_data(DataSetTask(wanted, options.tokens, where.system, pair, chosen, values))


def _require_of_one_kind(shown: Given, data: Given) -> None:
    """Raise `UsageError` for an option that would be ignored."""
    if "input" in data:
        for name in ("timeout", "trace"):
            if name in shown:
                raise UsageError(f"--{name} is for one prompt: leave it or --input out")
    for name in () if "input" in data else data:
        raise UsageError(f"--{spelled(name)} is for data sets: give --input too")


def _answer_prompt(
    messages: list[dict[str, Any]],
    options: ReplyOptions,
    pair: str | None,
    models: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    template = _early_template(settings)
    from wsd_local.cli.output import Printer
    from wsd_local.runtime.pair import load

    terminal.require_output()
    printer = Printer(as_json=options.as_json, tokens=options.tokens, trace=options.trace)
    with ExitStack() as stack:
        stack.enter_context(terminal.reader_may_leave())
        stack.callback(printer.close)
        interrupt = stack.enter_context(interruptible())

        def loading(role: Source, fraction: float) -> bool:
            printer.loading(role, fraction)
            return not interrupt.requested

        def hashing(done: int, total: int) -> None:
            printer.hashing(done, total)
            if interrupt.requested:
                raise CancelledError("interrupted")

        loaded = stack.enter_context(load(pair, progress=loading, template=template, **models, **settings))
        printer.planned(loaded.models.plan)
        if options.as_json:
            loaded.models.hash_files(hashing)
        _answer(loaded, messages, printer, interrupt, options.timeout)
        if (trouble := loaded.keep_prompts()) is not None:
            terminal.message(trouble)


def _answer(
    pair: Pair, messages: list[dict[str, Any]], printer: Printer, interrupt: Stop, timeout: float | None
) -> None:
    """Print the reply; it can also be stopped while its prompt is prepared."""
    from wsd_local.runtime.reply import Finished

    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        pair.cancel()

    interrupt.on_request(stop)
    if pair.settings.constraint is not None:
        printer.preparing()
    timer = threading.Timer(threading.TIMEOUT_MAX if timeout is None else timeout, stop)
    timer.daemon = True
    if timeout is not None:
        timer.start()
    try:
        reply = pair.start(messages)
        if stopped.is_set():  # before there was a reply to stop
            pair.cancel()
        try:
            for event in reply.events():
                printer.show(event)
        except CancelledError:
            raise
        except WsdError:
            if reply.reply.text:  # the text so far is kept, also as JSON
                printer.show(Finished(reply.reply))
            raise
        made = reply.reply
        is_complete = made.finish_reason != "cancelled"
    except CancelledError:
        is_complete = False
    finally:
        timer.cancel()
    if interrupt.requested:
        raise CancelledError("interrupted")
    if not is_complete:
        raise WsdError(f"stopped after {timeout:g} s (--timeout); the reply is not complete")
    _require_complete(made)


def _require_complete(reply: Reply) -> None:
    """Raise `WsdError` for a text that was cut before it followed its constraint to the end."""
    if reply.constraint is not None and not reply.constraint.complete:
        cuts = {"length": "--max-tokens or a full context", "loop": "--loop-guard, because it repeated itself,"}
        by = cuts.get(reply.finish_reason, "--stop")
        name = reply.constraint.kind.replace("_", "-")
        raise WsdError(f"the text is not complete: it was cut by {by} before it followed --{name} to its end")


def _early_template(settings: Mapping[str, Any]) -> Template:
    """What renders the draft's chat template, started while llama.cpp is imported."""
    from wsd_local.prompts.templates import Template

    template = Template()
    if settings.get("mode", "wsd") in ("wsd", "draft"):
        template.start()
    return template


# -- the prompt ----------------------------------------------------------------------------------------------


def _conversation(prompt: str | None, where: PromptOptions) -> list[dict[str, Any]]:
    from wsd_local.prompts.messages import conversation, counted
    from wsd_local.system.inputs import decoded, plain, read_stream, read_text

    unused = Counter[str]()
    given = _messages(where.messages, unused) if where.messages is not None else []
    parts = [plain(prompt)] if prompt is not None else []
    if where.file is not None:
        parts.append(read_text(where.file))
    stdin = sys.stdin
    if stdin is not None and not stdin.isatty():
        parts.append(decoded(read_stream(stdin.buffer, "standard input"), "standard input"))
    text = "\n\n".join(part.strip("\n") for part in parts if part.strip())
    if text:
        given.append({"role": "user", "content": text})
    elif not given:
        raise UsageError("there is no prompt: give it as an argument, with --file, or on standard input")
    checked = conversation(given, None if where.system is None else plain(where.system), unused)
    if unused:
        terminal.message(f"{where.messages}: the models do not read these fields: {counted(unused)}")
    return [dict(message) for message in checked]


def _messages(path: Path, unused: Counter[str]) -> list[dict[str, Any]]:
    from wsd_local.prompts.messages import has_content
    from wsd_local.system.inputs import read_json

    found = read_json(path)
    if isinstance(found, dict):
        unused.update(name for name, value in found.items() if name != "messages" and has_content(value))
        found = found.get("messages")
    if not isinstance(found, list):
        raise UsageError(f"{path}: must hold a list of messages, or an object with such a list in `messages`")
    return found
