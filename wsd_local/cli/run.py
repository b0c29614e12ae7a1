"""`wsd-local run`: a prompt and its reply, or a data set and its replies."""

from __future__ import annotations

import enum
import sys
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsd_local.cli import options, terminal
from wsd_local.errors import CancelledError, UsageError, WsdError
from wsd_local.system.interrupt import interruptible

if TYPE_CHECKING:
    from wsd_local.cli.output import Printer
    from wsd_local.prompts.templates import Template
    from wsd_local.runtime.pair import Pair
    from wsd_local.runtime.reply import Reply
    from wsd_local.system.interrupt import Stop


def run(
    context: typer.Context,
    prompt: Annotated[
        str | None, typer.Argument(help="The prompt. Standard input follows it, if there is any.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", help="Read the prompt from a file.")] = None,
    messages: Annotated[
        Path | None, typer.Option("--messages", help="JSON list of messages; the prompt, if any, follows them.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    tokens: Annotated[bool, typer.Option("--tokens", help="JSON with every token and its probability.")] = False,
    trace: Annotated[bool, typer.Option("--trace", help="Show who wrote what, and a summary line.")] = False,
    source: options.Input = None,
    output: options.OutputFile = None,
    form: options.InputFormat = None,
    column: options.Column = None,
    limit: options.Limit = None,
    shard: options.Shard = None,
    parallel: options.Parallel = "auto",
    on_error: options.OnErrorOption = options.OnError.SKIP,
    export: options.Export = None,
    quiet: options.Quiet = False,
    timeout: Annotated[float | None, typer.Option(help="Stop after this many seconds; what is there stays.")] = None,
    pair: options.Pair = None,
    draft: options.Draft = None,
    base: options.Base = None,
    draft_lora: options.DraftLora = None,
    draft_lora_scale: options.DraftLoraScale = 1.0,
    base_lora: options.BaseLora = None,
    base_lora_scale: options.BaseLoraScale = 1.0,
    base_format: options.BaseFormatFile = None,
    window: options.Window = 6,
    threshold: options.Threshold = 0.8,
    draft_max_tokens: options.DraftMaxTokens = 512,
    on_draft_end: options.OnEnd = options.OnDraftEnd.CONTINUE,
    check_chunk: options.CheckChunk = 8,
    mode: options.Mode = "wsd",
    urial: options.UrialFile = None,
    max_tokens: options.MaxTokens = 2048,
    temperature: options.Temperature = 0.0,
    top_k: options.TopK = 0,
    top_p: options.TopP = 1.0,
    min_p: options.MinP = 0.0,
    repeat_penalty: options.RepeatPenalty = 1.0,
    frequency_penalty: options.FrequencyPenalty = 0.0,
    presence_penalty: options.PresencePenalty = 0.0,
    repeat_last_n: options.RepeatLastN = 64,
    seed: options.Seed = None,
    stop: options.Stop = None,
    grammar: options.GrammarFile = None,
    json_schema: options.SchemaFile = None,
    regex: options.Regex = None,
    lark: options.LarkFile = None,
    ignore_eos: options.IgnoreEos = False,
    speculation: options.Speculation = options.Proposals.AUTO,
    draft_temperature: options.DraftTemperature = 0.0,
    draft_top_k: options.DraftTopK = 0,
    draft_top_p: options.DraftTopP = 1.0,
    draft_min_p: options.DraftMinP = 0.0,
    draft_repeat_penalty: options.DraftRepeatPenalty = 1.0,
    draft_frequency_penalty: options.DraftFrequencyPenalty = 0.0,
    draft_presence_penalty: options.DraftPresencePenalty = 0.0,
    draft_repeat_last_n: options.DraftRepeatLastN = 64,
    draft_seed: options.DraftSeed = None,
    ctx: options.Ctx = None,
    threads: options.Threads = None,
    n_gpu_layers: options.GpuLayers = "auto",
    draft_n_gpu_layers: options.DraftGpuLayers = None,
    base_n_gpu_layers: options.BaseGpuLayers = None,
    cache_type_k: options.CacheK = options.CacheKind.AUTO,
    cache_type_v: options.CacheV = options.CacheKind.AUTO,
    flash_attn: options.Flash = options.FlashAttn.AUTO,
    load_mode: options.Load = options.LoadKind.AUTO,
    resident: options.Resident = options.Residency.BOTH,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Answer a prompt (argument, --file, or standard input), or a data set (--input)."""
    if timeout is not None and not 0 < timeout <= threading.TIMEOUT_MAX:
        raise UsageError(f"timeout is {timeout}: it counts seconds and must be more than 0 and finite")
    from wsd_local.config import read_config
    from wsd_local.library.catalog import read_base_format

    _require_of_one_kind(context, is_data_set=source is not None)
    asked = _conversation(prompt, file, messages, system) if source is None else []
    show_native_log(verbose)
    config = read_config()
    settings = {**config.settings, **given_settings(context)} | {"probabilities": tokens}
    own = None if base_format is None else read_base_format(base_format)
    if source is not None:
        from wsd_local.cli.dataset import Asked, answer_data

        if prompt is not None or file is not None or messages is not None:
            raise UsageError("--input and a prompt are given: leave one out")
        answer_data(
            Asked(
                source=source,
                output=output,
                format=form,
                column=column,
                limit=limit,
                shard=shard,
                parallel=_parallel(context, parallel, config.settings.get("parallel")),
                stop_on_error=on_error is options.OnError.STOP,
                export=tuple(export or ()),
                quiet=quiet,
                tokens=tokens,
                system=system,
                pair=config.pair if pair is None else pair,
                models={"draft": draft, "base": base, "base_format": own},
                settings=settings,
            )
        )
        return
    template = _early_template(settings)
    from wsd_local.cli.output import Printer
    from wsd_local.events import Source
    from wsd_local.runtime.pair import load

    terminal.require_output()
    printer = Printer(as_json=as_json or tokens, tokens=tokens, trace=trace)
    with ExitStack() as stack:
        stack.enter_context(terminal.reader_may_leave())
        stack.callback(printer.close)
        interrupt = stack.enter_context(interruptible())

        def loading(role: Source, fraction: float) -> bool:
            printer.loading(role, fraction)
            return not interrupt.asked

        def hashing(done: int, total: int) -> None:
            printer.hashing(done, total)
            if interrupt.asked:
                raise CancelledError("interrupted")

        loaded = stack.enter_context(
            load(
                config.pair if pair is None else pair,
                draft=draft,
                base=base,
                base_format=own,
                progress=loading,
                template=template,
                **settings,
            )
        )
        printer.planned(loaded.plan)
        if as_json or tokens:
            loaded.hash_models(hashing)
        _answer(loaded, asked, printer, interrupt, timeout)


def _answer(pair: Pair, asked: list[dict[str, Any]], printer: Printer, interrupt: Stop, timeout: float | None) -> None:
    """Print the reply; it can be stopped while its prompt is made, too."""
    from wsd_local.runtime.reply import Finished

    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        pair.cancel()

    interrupt.calls(stop)
    if pair.settings.constraint is not None:
        printer.preparing()
    timer = threading.Timer(threading.TIMEOUT_MAX if timeout is None else timeout, stop)
    timer.daemon = True
    if timeout is not None:
        timer.start()
    try:
        reply = pair.start(asked, progress=printer.progress)
        if stopped.is_set():  # before there was a reply to stop
            pair.cancel()
        try:
            for event in reply.events():
                printer.show(event)
        except CancelledError:
            raise
        except WsdError:
            if reply.reply.text:  # what is there stays, also as JSON
                printer.show(Finished(reply.reply))
            raise
        made = reply.reply
        is_complete = made.finish_reason != "cancelled"
    except CancelledError:
        is_complete = False
    finally:
        timer.cancel()
    if interrupt.asked:
        raise CancelledError("interrupted")
    if not is_complete:
        raise WsdError(f"stopped after {timeout:g} s (--timeout); the reply is not complete")
    _require_complete(made)


def _require_complete(reply: Reply) -> None:
    """Raise `WsdError` for a text that was cut before it followed its constraint to the end."""
    if reply.constraint is not None and not reply.constraint.complete:
        by = "--max-tokens or a full context" if reply.finish_reason == "length" else "--stop"
        name = reply.constraint.kind.replace("_", "-")
        raise WsdError(f"the text is not complete: it was cut by {by} before it followed --{name} to its end")


def _early_template(settings: dict[str, Any]) -> Template:
    """What renders the draft's chat template, started while llama.cpp is imported."""
    from wsd_local.prompts.templates import Template

    template = Template()
    if settings.get("mode", "wsd") in ("wsd", "draft"):
        template.start()
    return template


def _parallel(context: typer.Context, given: str, configured: int | None) -> str:
    """Replies at once: the option, else what is configured."""
    source = context.get_parameter_source("parallel")
    is_given = source is not None and source.name != "DEFAULT"
    return given if is_given or configured is None else str(configured)


def _require_of_one_kind(context: typer.Context, *, is_data_set: bool) -> None:
    """Raise `UsageError` for an option that would be ignored."""
    wrong = ("timeout", "trace") if is_data_set else options.DATA_SET_ONLY
    for name in wrong:
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            shown = options.SPELLED.get(name, name.replace("_", "-"))
            what = "is for one prompt: leave it or --input out" if is_data_set else "is for data sets: give --input too"
            raise UsageError(f"--{shown} {what}")


def show_native_log(verbose: bool) -> None:
    """Print llama.cpp's log to standard error, or leave it silent."""
    if verbose:
        import logging

        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(terminal.VisibleFormatter("%(name)s: %(message)s"))
        logging.basicConfig(level=logging.DEBUG, handlers=[handler])


def given_settings(context: typer.Context) -> dict[str, Any]:
    """Those settings that were given as options, as the settings want them."""
    from wsd_local.settings import names
    from wsd_local.settings import read_text as setting_of
    from wsd_local.system.inputs import read_text

    settings: dict[str, Any] = {}
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        if name not in names() or name == "parallel" or source is None or source.name == "DEFAULT":
            continue
        if isinstance(value, enum.Enum):
            settings[name] = value.value
        elif isinstance(value, Path):
            is_text = name in ("grammar", "json_schema", "lark", "urial")
            settings[name] = read_text(value) if is_text else str(value)
        else:
            settings[name] = setting_of(name, value) if name == "n_gpu_layers" else value
    return settings


# -- the prompt ----------------------------------------------------------------------------------------------


def _conversation(
    prompt: str | None, file: Path | None, messages: Path | None, system: str | None
) -> list[dict[str, Any]]:
    from wsd_local.prompts.messages import conversation, counted
    from wsd_local.system.inputs import decoded, plain, read_stream, read_text

    unused = Counter[str]()
    given = _messages(messages, unused) if messages is not None else []
    parts = [plain(prompt)] if prompt is not None else []
    if file is not None:
        parts.append(read_text(file))
    stdin = sys.stdin
    if stdin is not None and not stdin.isatty():
        parts.append(decoded(read_stream(stdin.buffer, "standard input"), "standard input"))
    text = "\n\n".join(part.strip("\n") for part in parts if part.strip())
    if text:
        given.append({"role": "user", "content": text})
    elif not given:
        raise UsageError("there is no prompt: give it as an argument, with --file, or on standard input")
    checked = conversation(given, None if system is None else plain(system), unused)
    if unused:
        line = f"wsd-local: {messages}: the models do not read these fields: {counted(unused)}"
        terminal.note(line)
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
