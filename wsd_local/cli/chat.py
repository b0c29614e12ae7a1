"""`wsd-local chat`, the same as `wsd-chat`: the terminal UI."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from wsd_local.cli.options import NOTHING, Debug, Given, models_named, setting_values, settings_named, takes
from wsd_local.errors import UsageError
from wsd_local.fields import declared


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """Which chat is shown, and how."""

    open: int | None = None
    """Open this chat (wsd-local chats list)."""
    off_record: bool = False
    """Keep this chat in no file."""
    system: str | None = None
    """System message."""
    prepare: bool = True
    """Read ahead while you read; never on battery."""

    def __post_init__(self) -> None:
        if self.open is not None and self.off_record:
            raise UsageError("--open and --off-record are given: a chat that is kept is on the record")


SETTINGS = (
    "draft_lora",
    "base_lora",
    "threshold",
    "window",
    "rule",
    "return_",
    "entropy",
    "nudging",
    "veto",
    "bet",
    "temperature",
    "max_tokens",
    "ctx",
    "threads",
    "ubatch",
    "n_gpu_layers",
    "cache_type_k",
    "cache_type_v",
    "flash_attn",
    "load_mode",
    "resident",
)


@takes(
    how=declared(ChatOptions).values(),
    models=models_named("pair", "draft", "base"),
    settings=settings_named(*SETTINGS),
)
def chat(*, how: Given = NOTHING, models: Given = NOTHING, settings: Given = NOTHING, debug: Debug = False) -> int:
    """Chat in the terminal."""
    from wsd_chat.terminal.flow_control import no_flow_control

    with no_flow_control():
        return _chat(how, models, settings)


def _chat(how: Given, models: Given, settings: Given) -> int:
    from wsd_local.cli.terminal import note
    from wsd_local.config import read_config
    from wsd_local.paths import cache_dir
    from wsd_local.settings import split
    from wsd_local.store import Store

    config = read_config()
    values = setting_values(settings)
    pair = models.get("pair", config.pair)
    split({**config.settings_of(pair, models), **values})
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise UsageError("wsd-chat needs a terminal; in scripts and pipes use wsd-local run")
    from wsd_chat.app import ChatApp
    from wsd_chat.model_jobs import Wanted
    from wsd_chat.terminal.native_output import own_screen
    from wsd_chat.terminal.signals import ending

    wanted = ChatOptions(**how)
    choice = Wanted(pair, models.get("draft"), models.get("base"), values, wanted.prepare)
    log = cache_dir() / "wsd-chat.log"
    with Store() as store:
        if wanted.open is not None:
            store.chats.get(wanted.open)
        app = ChatApp(choice, store, chat=wanted.open, log=log, system=wanted.system, off_record=wanted.off_record)
        try:
            with own_screen(log), ending(app):
                app.run()
        finally:
            if app.lost is not None:
                note(f"wsd-chat: {app.lost}")
    return app.return_code or (1 if app.lost else 0)
