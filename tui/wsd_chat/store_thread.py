"""The thread in which the chat reads and writes its store.

Contract: calls run one after the other, in the order in which they were submitted, and can be awaited. The screen's
thread never waits for a disk or for another program that locks the file. Work that consists of several calls is marked
`in_order`: it begins when the work that was started before it is done.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class StoreThread:
    """One thread for everything that waits for the store."""

    def __init__(self, name: str = "store") -> None:
        self.order = asyncio.Lock()
        """Held by work of several calls."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def do(
        self, call: Callable[Parameters, Result], *arguments: Parameters.args, **named: Parameters.kwargs
    ) -> Result:
        """What the call returns or raises. It is made also if whoever awaits it is cancelled."""
        return await asyncio.shield(asyncio.wrap_future(self._thread.submit(call, *arguments, **named)))

    def close(self) -> None:
        """Calls that have not begun are dropped; the one that runs is completed."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class UsesStoreThread(Protocol):
    """An object whose methods can be marked `in_order`."""

    thread: StoreThread


Own = TypeVar("Own", bound=UsesStoreThread)


def in_order(
    method: Callable[Concatenate[Own, Parameters], Awaitable[Result]],
) -> Callable[Concatenate[Own, Parameters], Coroutine[Any, Any, Result]]:
    """A method that begins when the work that was started before it is done."""

    @functools.wraps(method)
    async def waits(self: Own, /, *arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
        async with self.thread.order:
            return await method(self, *arguments, **named)

    return waits
