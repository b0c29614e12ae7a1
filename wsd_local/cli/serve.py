"""`wsd-local serve`: pairs of this machine over HTTP, for clients of OpenAI's, Anthropic's and Ollama's protocols."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from wsd_local.cli import terminal
from wsd_local.cli.options import (
    ACCESS,
    NAME_OR_FILE,
    NOTHING,
    SERVER,
    SERVICE,
    Debug,
    Given,
    Verbose,
    setting_values,
    settings_without,
    show_native_log,
    takes,
)
from wsd_local.errors import UsageError, WsdError, message_of
from wsd_local.fields import declared, spelled
from wsd_local.load_settings import MODELS, MOST_PARALLEL, NO_FOLDER

if TYPE_CHECKING:
    from wsd_local.server.site import Plan, Site

KEY_VARIABLE = "WSD_LOCAL_API_KEY"
PARALLEL = 4
_CHOSEN_BY_CLIENTS = ("mode", "urial")
"""Settings that follow from the model that a client names."""
_PACKAGES = ("fastapi", "starlette", "pydantic", "uvicorn", "sse_starlette", "prometheus_client")
_STOP_S = 10.0
"""Seconds that a service manager waits in addition to the time for requests in progress."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What is served, where, and to whom.

    Raises:
        UsageError: a number is outside its range.
    """

    pair: Annotated[tuple[str, ...], MODELS] = ()
    """Pair to serve by name; may be given again, and the same one counts once. The first is loaded at the start,
    another when a client asks for it; one is in memory at a time. [default: the configuration's, else demo]"""
    host: Annotated[str, SERVER] = "127.0.0.1"
    """Address to listen at; one that other machines reach demands a key."""
    port: Annotated[int, SERVER] = 8080
    """Port to listen at; 0 takes a free one."""
    parallel: Annotated[int | None, SERVER] = None
    """Requests in progress at once; each has a whole context. [default: the configuration's, else 4]"""
    queue: Annotated[int, SERVER] = 128
    """Requests that may wait besides; further ones are refused (429)."""
    keep_alive: Annotated[float | None, SERVER] = None
    """Seconds without work after which the models are freed; the next request loads them again. [default: never]"""
    shutdown_timeout: Annotated[float, SERVER] = 30.0
    """Seconds that requests in progress have after the signal to end; then they are stopped."""
    ssl_certfile: Annotated[Path | None, SERVER] = None
    """Certificate (PEM) for HTTPS."""
    ssl_keyfile: Annotated[Path | None, SERVER] = None
    """Key (PEM) of the certificate, where it is in a file of its own."""
    api_key: Annotated[tuple[str, ...], ACCESS] = ()
    """Key that clients must send; may be given again. Other programs of this machine can see it: prefer the file."""
    api_key_file: Annotated[Path | None, ACCESS] = None
    """File with keys, one in each line. The variable WSD_LOCAL_API_KEY holds one too."""
    insecure: Annotated[bool, ACCESS] = False
    """Let other machines use the server without a key."""
    allow_host: Annotated[tuple[str, ...], ACCESS] = ()
    """Name under which clients reach the server, beside this machine's; * for any; may be given again."""
    allow_origin: Annotated[tuple[str, ...], ACCESS] = ()
    """Site whose pages may use the server from a browser (https://name); * for any; may be given again."""
    page: Annotated[bool, ACCESS] = True
    """Show the page at /, with the chats of wsd-chat: whoever may use the server can read and change them."""
    max_body: Annotated[int, ACCESS] = 8388608
    """Longest body of a request in bytes."""
    install_service: Annotated[bool, SERVICE] = False
    """Write a unit for systemd that starts the server with these options, and end."""
    uninstall_service: Annotated[bool, SERVICE] = False
    """Stop and remove that service, and end."""

    def __post_init__(self) -> None:
        for name, least, most in (
            ("port", 0, 65535),
            ("parallel", 1, MOST_PARALLEL),
            ("queue", 0, 100_000),
            ("shutdown_timeout", 0, 86_400),
            ("keep_alive", 0, 10**9),
            ("max_body", 1, 2**31 - 1),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise UsageError(f"{spelled(name)} is {value}: it must lie between {least} and {most}")


@takes(how=declared(ServeOptions).values(), settings=settings_without(*_CHOSEN_BY_CLIENTS, "probabilities", "parallel"))
def serve(*, how: Given = NOTHING, settings: Given = NOTHING, verbose: Verbose = False, debug: Debug = False) -> int:
    """Serve pairs over HTTP."""
    _require_packages()
    from wsd_local.server import deploy

    options = ServeOptions(**{name: _tuple(value) for name, value in how.items()})
    if options.uninstall_service:
        _require_alone({**how, **settings})
        _print(deploy.uninstall())
        return 0
    from wsd_local.server.site import Site

    site = Site(_plan(options, settings))
    if options.install_service:
        given = {name: value for name, value in how.items() if name not in ("install_service", "api_key")}
        keys = _unique([*options.api_key, *_key_of_environment()])
        _print(deploy.install(_arguments({**given, **settings}), keys, options.shutdown_timeout + _STOP_S))
        return 0
    show_native_log(verbose)
    _log_to_stderr()
    url = site.open()
    _announce(site, url)
    site.run(_hooks(site, options, settings), access_log=verbose)
    return 0


def _require_packages() -> None:
    """Raise `UsageError` if what the server needs is not installed."""
    from importlib.util import find_spec

    from wsd_local.system.extras import install_command

    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"serve needs {', '.join(missing)}: pip install 'wsd-local[serve]', or: {install_command('serve')}"
        )


def _require_alone(given: Given) -> None:
    for name, value in given.items():
        if name != "uninstall_service" and value:
            raise UsageError(f"--{spelled(name)} and --uninstall-service are given: leave one out")


# -- the plan --------------------------------------------------------------------------------------------------------


def _plan(options: ServeOptions, settings: Given) -> Plan:
    """What is to be served, by the options and by the configuration as it is now.

    Raises:
        UsageError: an option, the configuration, or a file with keys is wrong.
    """
    from wsd_local.config import read_config
    from wsd_local.server.guard import Access
    from wsd_local.server.site import Plan
    from wsd_local.settings import split

    config = read_config()
    values = {"parallel": PARALLEL, **config.settings, **setting_values(settings)}
    if options.parallel is not None:
        values["parallel"] = options.parallel
    for name in _CHOSEN_BY_CLIENTS:
        if values.pop(name, None) is not None:
            terminal.message(f"the configuration's {name} is not used: clients choose it by the model that they name")
    reply, loading = split(values)
    keys = [*options.api_key, *_key_of_environment(), *_keys_of(options.api_key_file)]
    return Plan(
        pairs=_unique(options.pair) or [config.pair or "demo"],
        overridden=frozenset(settings)
        | {name for name, source in config.sources.items() if source == "environment"}
        | set(_CHOSEN_BY_CLIENTS),
        reply=reply,
        loading=loading,
        access=Access(tuple(_unique(keys)), options.allow_host, options.allow_origin, options.max_body),
        host=options.host,
        port=options.port,
        queue=options.queue,
        keep_alive=options.keep_alive,
        shutdown_s=options.shutdown_timeout,
        certificate=options.ssl_certfile,
        certificate_key=options.ssl_keyfile,
        insecure=options.insecure,
        page=options.page,
    )


def _key_of_environment() -> list[str]:
    return [key for key in [os.environ.get(KEY_VARIABLE, "")] if key]


def _keys_of(path: Path | None) -> list[str]:
    """The keys in a file; lines that are empty or begin with # hold none.

    Raises:
        UsageError: the file cannot be read, or holds none.
    """
    from wsd_local.system.inputs import read_text

    if path is None:
        return []
    lines = [line.strip() for line in read_text(path).splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise UsageError(f"{path}: there is no key in it; write one in a line of its own")
    return keys


def _unique(values: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _arguments(given: Given) -> list[str]:
    """Options as they would be typed, with paths that hold in any folder."""
    found = []
    for name, value in given.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, bool):
                found.append(f"--{spelled(name)}" if one else f"--no-{spelled(name)}")
            else:
                found += [f"--{spelled(name)}", _anywhere(name, one)]
    return found


def _anywhere(name: str, value: Any) -> str:
    """An option's value as it holds in any folder."""
    names_file = name in NAME_OR_FILE and Path(value).suffix in (".gguf", ".toml") and Path(value).is_file()
    if names_file or (isinstance(value, Path) and str(value) not in NO_FOLDER):
        return str(Path(value).absolute())
    return str(value)


# -- what is shown ---------------------------------------------------------------------------------------------------


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        terminal.line(line)


def _log_to_stderr() -> None:
    """Show what the server's parts log: warnings and failures, each with the traceback that belongs to it."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            terminal.block(f"{self.format(record)}\n")

    handler = Handler()
    handler.setFormatter(terminal.VisibleFormatter("wsd-local: %(levelname)s: %(message)s"))
    for name in ("wsd_local.server", "uvicorn"):
        logger = logging.getLogger(name)
        if not logging.getLogger().handlers:  # else --verbose shows it already
            logger.addHandler(handler)
        logger.propagate = bool(logging.getLogger().handlers)
    logging.getLogger("sse_starlette").setLevel(logging.WARNING)  # it logs the text of replies


def _announce(site: Site, url: str) -> None:
    """What is served, where, and how it is tried."""
    plan = site.plan
    for pair in plan.pairs:
        terminal.message(f"serving the models {pair}, {pair}:base and {pair}:draft")
    terminal.message(f"listening on {url}")
    if plan.page:
        terminal.message(f"the page, with the chats of wsd-chat: {url}/")
    key = ' -H "Authorization: Bearer $KEY"' if plan.access.keys else ""
    body = f'{{"model": "{plan.pairs[0]}", "messages": [{{"role": "user", "content": "How do I boil an egg?"}}]}}'
    terminal.message(f"try it: curl {url}/v1/chat/completions -H 'Content-Type: application/json'{key} -d '{body}'")
    if plan.insecure and not plan.access.keys:
        what = "use the server and read the chats of its page" if plan.page else "use the server"
        terminal.message(f"no key is needed: everybody who reaches this address can {what} (--insecure)")


def _hooks(site: Site, options: ServeOptions, settings: Given) -> Any:
    from wsd_local.server.running import Hooks

    console = terminal.console(stderr=True)
    status = console.status("") if console.is_terminal else None
    shown: Mapping[str, Any] = {}

    def loading(pair: str, role: str, fraction: float) -> None:
        nonlocal shown
        if status is not None:
            status.update(f"loading the {role} model of {pair}: {fraction:.0%}")
            status.start()
        elif shown != (now := {"pair": pair, "role": role}):
            shown = now
            terminal.message(f"loading the {role} model of {pair}")

    def ready() -> None:
        if status is not None:
            status.stop()
        terminal.message("ready")

    def reload() -> None:
        try:
            site.reload(_plan(options, settings))
        except (WsdError, OSError) as error:
            terminal.message(f"the configuration was not reloaded: {message_of(error)}")
        else:
            terminal.message("the configuration was reloaded")

    def ending(seconds: float) -> None:
        if status is not None:
            status.stop()
        terminal.message(f"ending; requests in progress have {seconds:g} s")

    return Hooks(loading, ready, reload, ending)
