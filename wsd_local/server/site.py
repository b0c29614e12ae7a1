"""A whole server: a plan of what is served to whom, the desk that answers, and all that stands before it.

Contract: making a `Site` checks the plan, and opens and loads nothing; `open` takes the port; `run` serves until a
signal ends it.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from wsd_local.config import read_config
from wsd_local.errors import UsageError
from wsd_local.library.catalog import PairEntry
from wsd_local.library.resolve import named_pair
from wsd_local.server.app import create_app
from wsd_local.server.desk import Desk
from wsd_local.server.guard import Access, Guard, host_name
from wsd_local.server.listening import bound, is_loopback, load_certificate, tls, url_of
from wsd_local.server.metrics import Counted, Metrics
from wsd_local.server.running import Hooks, run
from wsd_local.settings import LoadSettings, ReplySettings
from wsd_local.store import Store, StoreError


@dataclass(frozen=True, slots=True)
class Plan:
    """What is served, where, and to whom.

    Args:
        pairs: by name; the first is loaded at the start.
        reply: defaults of every reply.
        loading: how models are loaded; `parallel` is the number of requests in progress at once.
        access: who may use it.
        host: the address to listen at.
        port: the port; 0: one that is free.
        queue: requests that may wait.
        keep_alive: seconds without work after which the models are freed; None: never.
        shutdown_s: seconds that requests in progress have at the end.
        certificate: its PEM file, for HTTPS.
        certificate_key: the file of its key, where that is apart.
        insecure: whether other machines need no key.
        page: whether there is the page at `/`, with the chats of `wsd-chat`.
        overridden: settings in which `reply` overrides the pairs' own.

    Raises:
        UsageError: other machines could use it without a key, and that was not wanted.
    """

    pairs: Sequence[str]
    reply: ReplySettings = field(default_factory=ReplySettings)
    loading: LoadSettings = field(default_factory=LoadSettings)
    access: Access = field(default_factory=Access)
    host: str = "127.0.0.1"
    port: int = 8080
    queue: int = 128
    keep_alive: float | None = None
    shutdown_s: float = 30.0
    certificate: Path | None = None
    certificate_key: Path | None = None
    insecure: bool = False
    page: bool = True
    overridden: frozenset[str] = frozenset()

    @property
    def entries(self) -> list[PairEntry]:
        """The pairs, each with those of its own settings that hold.

        Raises:
            UsageError: there is no such pair.
        """
        own = read_config().pairs
        return [self._entry(named_pair(pair, own)) for pair in self.pairs]

    def _entry(self, entry: PairEntry) -> PairEntry:
        settings = {name: value for name, value in entry.settings.items() if name not in self.overridden}
        return replace(entry, settings=settings)

    def __post_init__(self) -> None:
        if not (self.access.keys or self.insecure or is_loopback(self.host)):
            raise UsageError(
                f"host {self.host} lets other machines use this server: give a key with --api-key-file, --api-key or "
                "WSD_LOCAL_API_KEY, or --insecure to do without"
            )


class Site:
    """One server.

    Args:
        plan: what it serves.

    Raises:
        UsageError: a pair, a setting or a certificate is wrong.
        ModelError: a model is not on this machine.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tls: ssl.SSLContext | None = tls(plan.certificate, plan.certificate_key)
        self._metrics = Metrics()
        self.desk = Desk(
            plan.entries, plan.reply, plan.loading, queue=plan.queue, keep_alive=plan.keep_alive, observer=self._metrics
        )
        self._store: Store | None = None
        self._listeners: list[socket.socket] = []

    def open(self) -> str:
        """Take the port, and open the chats of the page; the value is the URL.

        Raises:
            UsageError: there is no such host.
            WsdError: the port is in use.
            StoreError: the chats cannot be opened.
        """
        self._listeners = bound(self.plan.host, self.plan.port)
        self._store = _opened() if self.plan.page else None
        self.guard = Guard(create_app(self.desk, self._metrics, self._store), access_of(self.plan))
        port = self._listeners[0].getsockname()[1]
        return url_of(self.plan.host, port, secure=self.tls is not None)

    def run(self, hooks: Hooks, *, access_log: bool = False) -> None:
        """Load the first pair and serve until a signal ends it. Main thread only.

        Raises:
            WsdError: the first pair could not be loaded.
        """
        with self._store or nullcontext():
            run(
                Counted(self.guard, self._metrics),
                self.desk,
                self._listeners,
                hooks,
                tls=self.tls,
                shutdown_s=self.plan.shutdown_s,
                access_log=access_log,
            )

    def reload(self, plan: Plan) -> None:
        """Serve what another plan says: pairs, settings, keys, names, origins, and the certificate's new content.

        Address, port, slots, queue and page stay. What is in progress goes on as it began.

        Raises:
            WsdError: the plan is wrong; nothing changes then.
        """
        tls(plan.certificate, plan.certificate_key)
        self.desk.reload(plan.entries, plan.reply, plan.loading)
        if self.tls is not None and plan.certificate is not None:
            load_certificate(self.tls, plan.certificate, plan.certificate_key)
        self.guard.access = access_of(plan)
        self.plan = plan


def access_of(plan: Plan) -> Access:
    """Who may use the server of a plan: it is also known by the name at which it listens."""
    if host_name(plan.host) is None:
        return plan.access
    return replace(plan.access, hosts=(*plan.access.hosts, plan.host))


def _opened() -> Store:
    """The chats of this user.

    Raises:
        StoreError: they cannot be opened.
    """
    try:
        return Store()
    except StoreError as error:
        raise StoreError(f"{error}; --no-page serves without the page and its chats") from error
