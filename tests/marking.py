"""Markers that follow from what a test uses, so that nobody has to remember them.

`oracle`: the test uses the three-pass oracle. `process`: it, or a function or fixture of its module that it calls,
starts a process. Both are read off the names that the test's code uses. `screen`: a coroutine, which drives the chat by
its keys, or a snapshot of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import pytest

USES = {
    "oracle": {"Oracle", "exact_oracle", "Tally"},
    "process": {"wsd_process", "started", "OnTerminal", "subprocess", "ProcessPoolExecutor"},
}
"""Names whose use gives a test the marker."""


def mark(item: pytest.Item) -> None:
    """Add the markers of one test."""
    if isinstance(item, pytest.Function):
        used = set(_names(item.function, seen=set())).union(*(_fixture_names(item, name) for name in item.fixturenames))
        for marker, names in USES.items():
            if used & names:
                item.add_marker(marker)
        if inspect.iscoroutinefunction(item.function) or "snap_compare" in item.fixturenames:
            item.add_marker("screen")


def _fixture_names(item: pytest.Function, fixture: str) -> set[str]:
    found = item._fixtureinfo.name2fixturedefs.get(fixture, ())
    own = [definition.func for definition in found if definition.func.__module__ == item.module.__name__]
    return {name for function in own for name in _names(function, seen=set())}


def _names(function: Callable[..., Any], *, seen: set[Callable[..., Any]]) -> Iterator[str]:
    """All names that a function uses, also by functions of its own module and of `terminals`."""
    function = getattr(function, "__wrapped__", function)
    inner = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    code = getattr(inner, "__code__", None)
    if code is None or inner in seen:
        return
    seen.add(inner)
    for name in _code_names(code):
        yield name
        other = inner.__globals__.get(name)
        if callable(other) and getattr(other, "__module__", None) in (inner.__module__, "terminals"):
            yield from _names(other, seen=seen)


def _code_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code_names(constant)
