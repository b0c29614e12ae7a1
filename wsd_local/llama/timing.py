"""How long calls into llama.cpp take.

Contract: inside `timed_calls` each function that this package looks up in the module `llama_cpp` is timed. Work that a
device does after a call has returned counts where a later call waits for it. What timing itself costs (below
a microsecond a call) counts as the caller's own time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import llama_cpp


@dataclass(slots=True)
class NativeTime:
    """Seconds inside llama.cpp, and the number of calls."""

    seconds: float = 0.0
    calls: int = 0


@contextmanager
def timed_calls(clock: Callable[[], float]) -> Iterator[NativeTime]:
    """Time all calls until the end of the block. For one thread."""
    spent = NativeTime()
    kind = type(llama_cpp.llama_decode)
    functions = {name: value for name, value in vars(llama_cpp).items() if isinstance(value, kind)}
    for name, function in functions.items():
        setattr(llama_cpp, name, _timed(function, clock, spent))
    try:
        yield spent
    finally:
        for name, function in functions.items():
            setattr(llama_cpp, name, function)


def _timed(function: Callable[..., Any], clock: Callable[[], float], spent: NativeTime) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        begun = clock()
        try:
            return function(*arguments)
        finally:
            spent.seconds += clock() - begun
            spent.calls += 1

    return call
