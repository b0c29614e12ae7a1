"""Values of the wrong kind in a chat store, which another program or a damaged disk may have left there.

Contract: what cannot be read as what it should be is a `StoreError` of one line that names the place. A report of a
reply has the parts that are listed here or lacks them; other parts are not looked at.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from wsd_local.errors import short
from wsd_local.store.file import StoreError

Kinds = tuple[type, ...]
TEXT: Kinds = (str,)
COUNT: Kinds = (int,)
NUMBER: Kinds = (int, float)
NOTHING: Kinds = (type(None),)

_LONGEST = 120
"""Characters of a cause that are shown."""

_REPORT: Mapping[str, Mapping[str, Kinds]] = {
    "draft": {"model": TEXT + NOTHING, "kept_tokens": COUNT},
    "base": {"model": TEXT + NOTHING, "tokens": COUNT},
    "timings": {"total_s": NUMBER},
    "checked": {"probs": (list,), "windows": (list,)},
}
_SWITCH: Mapping[str, Kinds] = {
    "reason": TEXT + NOTHING,
    "confidence": NUMBER + NOTHING,
    "index": COUNT + NOTHING,
    "window": COUNT,
    "threshold": NUMBER,
}
_TOGETHER = ("draft", "base", "timings")
"""Parts of a report that is complete."""


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Say in one line that `what` is damaged where it cannot be read.

    Raises:
        StoreError: it is damaged.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError, zlib.error) as error:
        why = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        raise StoreError(
            f"the chats' file is damaged at {what}: {why}; restore a copy of the file, or delete the chat "
            "(wsd-local chats rm)"
        ) from error


def of_kind(name: str, value: Any, kinds: Kinds) -> Any:
    """The value.

    Raises:
        TypeError: it is of another kind; a bool is no number.
    """
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise TypeError(f"{name} is {short(value)}")
    return value


def checked_report(report: Any) -> dict[str, Any]:
    """A reply's report.

    Raises:
        TypeError: a part is of the wrong kind.
        KeyError: a part is not complete.
    """
    found: dict[str, Any] = of_kind("its report", report, (dict,))
    if any(part in found for part in _TOGETHER):
        missing = [part for part in _TOGETHER if part not in found]
        if missing:
            raise TypeError(f"its report has no {missing[0]}")
    for part, kinds in _REPORT.items():
        if part in found:
            values = of_kind(part, found[part], (dict,))
            for name, kind in kinds.items():
                of_kind(f"{part} {name}", values.get(name), kind)
    if (switch := found.get("switch")) is not None:
        of_kind("its switch", switch, (dict,))
        for name, kind in _SWITCH.items():
            if name in switch:
                of_kind(f"switch {name}", switch[name], kind)
    of_kind("its discarded text", found.get("discarded", ""), TEXT)
    for piece in of_kind("its pieces", found.get("pieces", []), (list,)):
        length, source, prob = of_kind("a piece", piece, (list,))
        _ = of_kind("a piece's length", length, COUNT), of_kind("a piece's writer", source, TEXT)
        of_kind("a piece's probability", prob, NUMBER + NOTHING)
    checked = found.get("checked", {})
    for number in [*checked.get("probs", []), *checked.get("windows", [])]:
        of_kind("a probability", number, NUMBER + NOTHING)
    return found
