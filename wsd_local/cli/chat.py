"""`wsd-local chat`, the same as `wsd-chat`: the terminal UI."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from wsd_local.cli import options


def chat(
    context: typer.Context,
    pair: options.Pair = None,
    draft: options.Draft = None,
    base: options.Base = None,
    draft_lora: options.DraftLora = None,
    base_lora: options.BaseLora = None,
    open_chat: Annotated[int | None, typer.Option("--open", help="Open this chat (wsd-local chats list).")] = None,
    off_record: Annotated[bool, typer.Option("--off-record", help="Keep this chat in no file.")] = False,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    threshold: options.Threshold = 0.8,
    temperature: options.Temperature = 0.0,
    max_tokens: options.MaxTokens = 2048,
    ctx: options.Ctx = None,
    threads: options.Threads = None,
    n_gpu_layers: options.GpuLayers = "auto",
    cache_type_k: options.CacheK = options.CacheKind.AUTO,
    cache_type_v: options.CacheV = options.CacheKind.AUTO,
    flash_attn: options.Flash = options.FlashAttn.AUTO,
    load_mode: options.Load = options.LoadKind.AUTO,
    resident: options.Resident = options.Residency.BOTH,
    prepare: Annotated[
        bool, typer.Option("--prepare/--no-prepare", help="Read ahead while you read; never on battery.")
    ] = True,
    debug: options.Debug = False,
) -> None:
    """Chat in the terminal."""
    from wsd_local.cli.run import given_settings
    from wsd_local.cli.terminal import note
    from wsd_local.config import read_config
    from wsd_local.errors import UsageError
    from wsd_local.paths import cache_dir
    from wsd_local.settings import split
    from wsd_local.store import Store

    config = read_config()
    settings = {**config.settings, **given_settings(context)}
    split(settings)
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise UsageError("wsd-chat needs a terminal; in scripts and pipes use wsd-local run")
    from wsd_chat.app import ChatApp
    from wsd_chat.model_jobs import Wanted
    from wsd_chat.terminal.native_output import own_screen
    from wsd_chat.terminal.signals import ending

    wanted = Wanted(config.pair if pair is None else pair, draft, base, settings, prepare)
    log = cache_dir() / "wsd-chat.log"
    if open_chat is not None and off_record:
        raise UsageError("--open and --off-record are given: a chat that is kept is on the record")
    with Store() as store:
        if open_chat is not None:
            store.chat(open_chat)
        app = ChatApp(wanted, store, chat=open_chat, log=log, system=system, off_record=off_record)
        try:
            with own_screen(log), ending(app):
                app.run()
        finally:
            if app.lost is not None:
                note(f"wsd-chat: {app.lost}")
    if code := app.return_code or (1 if app.lost else 0):
        raise typer.Exit(code)
