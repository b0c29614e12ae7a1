"""Aligned answers from a large base model, by Weak-to-Strong Decoding over llama.cpp.

import wsd_local as wsd

with wsd.load("demo") as pair:
    print(pair.reply("How do I boil an egg?").text)
"""

from wsd_local.version import __version__

TYPE_CHECKING = False  # as in `typing`: `python -m wsd_local` imports nothing before it has left the working folder
if TYPE_CHECKING:
    from typing import Any

    from wsd_local.errors import BusyError, CancelledError, FitError, ModelError, UsageError, WsdError
    from wsd_local.events import Checked, Event, Notice, Reading, Returned, Switched, Text, Wrote
    from wsd_local.prompts.base_format import BaseFormat
    from wsd_local.prompts.raw import RawPrompt
    from wsd_local.runtime.pair import Pair, load
    from wsd_local.runtime.reply import Finished, Reply
    from wsd_local.runtime.run import Run
    from wsd_local.runtime.session import Session

__all__ = [
    "BaseFormat",
    "BusyError",
    "CancelledError",
    "Checked",
    "Event",
    "Finished",
    "FitError",
    "ModelError",
    "Notice",
    "Pair",
    "RawPrompt",
    "Reading",
    "Reply",
    "Returned",
    "Run",
    "Session",
    "Switched",
    "Text",
    "UsageError",
    "Wrote",
    "WsdError",
    "__version__",
    "load",
]

_MODULES = {
    "errors": ("BusyError", "CancelledError", "FitError", "ModelError", "UsageError", "WsdError"),
    "events": ("Checked", "Event", "Notice", "Reading", "Returned", "Switched", "Text", "Wrote"),
    "runtime.pair": ("Pair", "load"),
    "prompts.base_format": ("BaseFormat",),
    "prompts.raw": ("RawPrompt",),
    "runtime.reply": ("Finished", "Reply"),
    "runtime.run": ("Run",),
    "runtime.session": ("Session",),
}


def __getattr__(name: str) -> "Any":
    """Import public names when they are first used: llama.cpp is heavy, `--help` is not."""
    import importlib

    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"wsd_local.{module}"), name)
    raise AttributeError(f"module 'wsd_local' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, though most are imported when they are first used."""
    return sorted({*globals(), *__all__})
