"""`wsd-local run`: one prompt, one reply."""

from __future__ import annotations

import json
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from wsd_local.cli import options
from wsd_local.cli.interrupt import interruptible
from wsd_local.errors import CancelledError, UsageError, WsdError


def run(
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
    timeout: Annotated[float | None, typer.Option(help="Stop after this many seconds; what is there stays.")] = None,
    pair: options.Pair = "demo",
    draft: options.Draft = None,
    base: options.Base = None,
    window: options.Window = 6,
    threshold: options.Threshold = 0.8,
    draft_max_tokens: options.DraftMaxTokens = 512,
    on_draft_end: options.OnEnd = options.OnDraftEnd.CONTINUE,
    check_chunk: options.CheckChunk = 8,
    mode: options.Mode = "wsd",
    max_tokens: options.MaxTokens = 2048,
    temperature: options.Temperature = 0.0,
    top_k: options.TopK = 0,
    top_p: options.TopP = 1.0,
    min_p: options.MinP = 0.0,
    seed: options.Seed = None,
    ignore_eos: options.IgnoreEos = False,
    ctx: options.Ctx = None,
    threads: options.Threads = None,
    n_gpu_layers: options.GpuLayers = -1,
    draft_n_gpu_layers: options.DraftGpuLayers = None,
    base_n_gpu_layers: options.BaseGpuLayers = None,
    cache_type_k: options.CacheK = options.CacheKind.F16,
    cache_type_v: options.CacheV = options.CacheKind.F16,
    flash_attn: options.Flash = options.FlashAttn.AUTO,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Answer a prompt: argument, --file, or standard input."""
    if timeout is not None and not 0 < timeout <= threading.TIMEOUT_MAX:
        raise UsageError(f"timeout is {timeout}: it counts seconds and must be more than 0 and finite")
    asked = _conversation(prompt, file, messages, system)
    show_native_log(verbose)
    from wsd_local.cli.output import Printer, reader_may_leave
    from wsd_local.events import Source
    from wsd_local.pairs import load

    settings: dict[str, Any] = {
        "window": window,
        "threshold": threshold,
        "draft_max_tokens": draft_max_tokens,
        "on_draft_end": on_draft_end.value,
        "check_chunk": check_chunk,
        "mode": mode,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "seed": seed,
        "ignore_eos": ignore_eos,
        "probabilities": tokens,
        "ctx": ctx,
        "threads": threads,
        "n_gpu_layers": n_gpu_layers,
        "draft_n_gpu_layers": draft_n_gpu_layers,
        "base_n_gpu_layers": base_n_gpu_layers,
        "cache_type_k": cache_type_k.value,
        "cache_type_v": cache_type_v.value,
        "flash_attn": flash_attn.value,
    }
    printer = Printer(as_json=as_json or tokens, tokens=tokens, trace=trace)
    with ExitStack() as stack:
        stack.enter_context(reader_may_leave())
        stack.callback(printer.close)
        stop = stack.enter_context(interruptible())

        def loading(role: Source, fraction: float) -> bool:
            printer.loading(role, fraction)
            return not stop.asked

        loaded = stack.enter_context(load(pair, draft=draft, base=base, progress=loading, **settings))
        if as_json or tokens:
            loaded.hash_models()
        reply = loaded.start(asked, progress=printer.progress)
        stop.calls(loaded.cancel)
        if timeout is not None:
            timer = threading.Timer(timeout, loaded.cancel)
            timer.start()
            stack.callback(timer.cancel)
        for event in reply.events():
            printer.show(event)
        if stop.asked:
            raise CancelledError("interrupted")
        if reply.reply.finish_reason == "cancelled":
            raise WsdError(f"stopped after {timeout:g} s (--timeout); the reply is not complete")


def chat() -> None:
    """Chat in the terminal (the same as wsd-chat)."""
    from wsd_chat.__main__ import main

    main()


def show_native_log(verbose: bool) -> None:
    """Print llama.cpp's log to standard error, or leave it silent."""
    if verbose:
        import logging

        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(name)s: %(message)s")


# -- the prompt ----------------------------------------------------------------------------------------------


def _conversation(
    prompt: str | None, file: Path | None, messages: Path | None, system: str | None
) -> list[dict[str, Any]]:
    from wsd_local.prompts import conversation

    given = _messages(messages) if messages is not None else []
    parts = [prompt] if prompt is not None else []
    if file is not None:
        parts.append(_decoded(_read(file), str(file)))
    stdin = sys.stdin
    if stdin is not None and not stdin.isatty():
        parts.append(_decoded(stdin.buffer.read(), "standard input"))
    text = "\n\n".join(part.strip("\n") for part in parts if part.strip())
    if text:
        given.append({"role": "user", "content": text})
    elif not given:
        raise UsageError("there is no prompt: give it as an argument, with --file, or on standard input")
    return [dict(message) for message in conversation(given, system)]


def _messages(path: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(_decoded(_read(path), str(path)))
    except ValueError as error:
        raise UsageError(f"{path}: is not JSON: {error}") from error
    if isinstance(found, dict):
        found = found.get("messages")
    if not isinstance(found, list):
        raise UsageError(f"{path}: must hold a list of messages, or an object with such a list in `messages`")
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: is not UTF-8 at byte {error.start}; convert it first (iconv -t utf-8)") from error
