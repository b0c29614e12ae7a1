"""`wsd-local rpc-worker`: this machine's memory and processors for a pair on another machine."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated

from wsd_local.cli import terminal
from wsd_local.cli.options import NOTHING, SERVER, Debug, Given, takes
from wsd_local.core.resources import require_threads
from wsd_local.errors import CancelledError, UsageError
from wsd_local.fields import declared
from wsd_local.system.rpc import PORT

if TYPE_CHECKING:
    from wsd_local.system.rpc import Endpoint, Worker


@dataclass(frozen=True, slots=True)
class RpcWorkerOptions:
    """Where the worker listens, and what it uses.

    Raises:
        UsageError: a number is outside its range.
    """

    host: Annotated[str, SERVER] = "127.0.0.1"
    """IPv4 address to listen at. Nothing is authenticated or encrypted: see docs/guide/machines.md."""
    port: Annotated[int, SERVER] = PORT
    """Port to listen at."""
    cache: Annotated[bool, SERVER] = False
    """Keep large weights in the cache folder, so that the next loading need not send them again."""
    threads: Annotated[int | None, SERVER] = None
    """CPU threads. [default: all cores, half of them on machines with more than four]"""

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise UsageError(f"port is {self.port}: it must lie between 1 and 65535")
        require_threads(self.threads)


@takes(how=declared(RpcWorkerOptions).values())
def rpc_worker(*, how: Given = NOTHING, debug: Debug = False) -> int:
    """Serve this machine's devices to pairs on other machines."""
    from wsd_local.llama.options import default_threads
    from wsd_local.paths import cache_dir
    from wsd_local.system.interrupt import interruptible
    from wsd_local.workers.serving import Watching, listening_at, serve

    options = RpcWorkerOptions(**how)
    place = listening_at(options.host, options.port)
    cache = cache_dir() / "rpc" if options.cache else None

    def ready(worker: Worker) -> None:
        _announce(place, worker)
        if cache is not None:
            terminal.message(f"large weights are kept in {cache}; remove the folder to free the disk")

    def client(came: bool) -> None:
        terminal.message("a client connected" if came else "the client left")

    with interruptible() as interrupt:
        try:
            serve(place, cache, options.threads or default_threads(), Watching(ready, client), interrupt.on_request)
        except CancelledError:
            return 0
    return 0


def _announce(place: Endpoint, worker: Worker) -> None:
    from wsd_local.units import gib, plural

    sizes = ", ".join(f"{gib(free)} free of {gib(total)}" for free, total in worker.memory)
    terminal.message(f"serving {plural(len(worker.memory), 'device')} ({sizes}) at {place}, one client at a time")
    if ip_address(place.host).is_loopback:
        terminal.message(
            "nothing is authenticated: every program on this machine can use the worker; other machines reach it "
            f"through an SSH tunnel: ssh -L {place.port}:127.0.0.1:{place.port} THIS-MACHINE"
        )
    else:
        terminal.message(
            "nothing is authenticated or encrypted: whoever reaches this address can read weights and texts, and run "
            "code here by a damaged message; let only machines that you trust reach it"
        )
    terminal.message(f"use it: wsd-local run --rpc {place} …")
