"""The thread in which the chat reads and writes its store.

Contract: calls run one after the other in the order in which they were given; whoever gives one may await it. The
screen's thread never waits for a disk or for another program that holds the file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Desk:
    """One thread that does what takes time."""

    def __init__(self, name: str = "store") -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def do(
        self, call: Callable[Parameters, Result], *arguments: Parameters.args, **named: Parameters.kwargs
    ) -> Result:
        """What the call returns or raises, once those before it are done; it is made also if nobody waits."""
        return await asyncio.shield(asyncio.wrap_future(self._thread.submit(call, *arguments, **named)))

    def close(self) -> None:
        """What has not begun is dropped; what runs comes to its end by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)
