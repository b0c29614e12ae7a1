"""The end of `wsd-local train draft --adapter-only`: the adapter becomes a GGUF file, and its command line is shown."""

from __future__ import annotations

import shlex
from pathlib import Path

from wsd_local.cli import terminal


def make_adapter(folder: Path, target: Path, name: str) -> None:
    """Make a GGUF adapter of the one that a training wrote into its folder."""
    from wsd_local.cli.convert import steps_shown
    from wsd_local.library.convert_adapter import convert_adapter
    from wsd_local.library.peft import read_adapter
    from wsd_local.system.child import Observer
    from wsd_local.system.interrupt import interruptible
    from wsd_local.training.worker import ADAPTER

    adapter = read_adapter(folder / ADAPTER)
    with interruptible() as stop, steps_shown("converting") as progress:
        observer = Observer(progress, stop.on_request)
        convert_adapter(adapter, adapter.folder, target, name=name, force=True, observer=observer)


def say_use(model: str, name: str, *, converted: bool) -> None:
    """Say how the adapter goes on top of the model that was trained; `converted` if that is a GGUF file."""
    named = shlex.quote(model)
    if not converted:
        terminal.message(f"convert its model, unless you have that: wsd-local models convert {named} --as MODEL")
        named = "MODEL"
    terminal.message(f"use it with: wsd-local run PROMPT --draft {named} --draft-lora {name}")
