"""HTTP as this program uses it: what may be sent where, and which parts of an address may be shown.

Contract: a token goes to its own host alone, over TLS or to this machine itself without a proxy, and no redirect leads
from https to http. A request names this program, and states nothing about the machine. Nothing that is shown
holds a password, a token, or a signature (`without_secrets`), whichever message, log or traceback it is a part of.
"""

from __future__ import annotations

import importlib
import ipaddress
import logging
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from wsd_local.errors import WsdError

if TYPE_CHECKING:
    import httpx2

AGENT = "wsd-local"
"""The user agent; the hooks below recognise this program's requests by it."""
HIDDEN = "***"
"""Replaces a secret."""

_SECRET = "token|key|secret|passw|pwd|sig|auth|credential|policy|session"
_USER = re.compile(r"((?:\b[a-z][a-z0-9+.-]*:)?//)[^\s/?#]*@", re.IGNORECASE)
_USER_WITH_SLASH = re.compile(r"(//)[^\s/:@\[]*:(?!\d+[/?#])[^\s@]*@(?=[\w\[])")
_USER_ALONE = re.compile(r"(?<![\w/@])[^\s/:@'\"(]+:[^\s/@'\"]+@(?=[\w.-]+(?:[:/]|\b))")
_QUERY = re.compile(rf"([?&;#][^=&\s#]*(?:{_SECRET})[^=&\s#]*=)[^&\s#'\"<>]+", re.IGNORECASE)
_HEADER = re.compile(r"\b(bearer|basic) +[\w.~+/=-]{6,}", re.IGNORECASE)
_TOKEN = re.compile(r"\b(hf|api_org|pypi|gh[opsu]|github_pat|glpat)[_-][A-Za-z0-9_-]{16,}")
_NAMES = re.compile(r"TOKEN|SECRET|PASS|(API|ACCESS|PRIVATE)_?KEY|CREDENTIAL|AUTH(?!OR)|(^|_)PAT$", re.IGNORECASE)
_AMBIGUOUS = re.compile(r"[\\\s\x00-\x1f]")
"""Characters in an address that programs parse in different ways."""
_SHORTEST = 8
"""Characters: a shorter secret could be an ordinary word of the text."""


# -- what may be shown -----------------------------------------------------------------------------------------------


def without_secrets(text: object) -> str:
    """A text without user information in addresses, secrets in queries, tokens, and secrets of the environment."""
    shown = _USER.sub(r"\1", str(text))
    shown = _USER_WITH_SLASH.sub(r"\1", shown)
    shown = _USER_ALONE.sub("", shown)
    shown = _QUERY.sub(rf"\1{HIDDEN}", shown)
    shown = _HEADER.sub(rf"\1 {HIDDEN}", shown)
    shown = _TOKEN.sub(rf"\1_{HIDDEN}", shown)
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _NAMES.search(name) and value in shown and not os.path.exists(value):  # noqa: PTH110
            shown = shown.replace(value, HIDDEN)
    return shown


def one_line(message: object) -> str:
    """Text of a server or a library on one line, without secrets, numbers of errors and control characters."""
    shown = without_secrets(re.sub(r"\[(?:Errno|WinError) -?\d+\] ", "", " ".join(str(message).split())))
    return "".join(sign for sign in shown if sign.isprintable())[:200]


# -- what may be sent ------------------------------------------------------------------------------------------------


def is_open(url: str) -> bool:
    """Whether others on the network can read what is sent to an address: plain HTTP to another machine.

    So can a proxy on the way to this machine itself. What two programs may read as different addresses counts as open.
    """
    if _AMBIGUOUS.search(url):
        return True
    parts = urlsplit(url)
    if parts.scheme.lower() == "https":
        return False
    host = parts.hostname or ""
    return not _is_this_machine(host) or _through_proxy(host)


def same_origin(one: str, other: str) -> bool:
    """Whether two addresses have scheme, host and port in common."""
    return _origin(one) == _origin(other) and not _AMBIGUOUS.search(one + other)


def hub_token(endpoint: str, token: str | None = None) -> str | None:
    """The token to send to a Hub: the given one, else what the environment has; none that others could read."""
    return None if is_open(endpoint) else _own_token(token)


def withheld(endpoint: str, token: str | None = None) -> str | None:
    """One line that states that a token is not sent; None if it is, or there is none."""
    if not is_open(endpoint) or _own_token(token) is None:
        return None
    shown, host = without_secrets(endpoint), urlsplit(endpoint).hostname or ""
    if _is_this_machine(host):
        return f"{shown} is plain HTTP through a proxy: your token is not sent to it; put {host} in NO_PROXY"
    return f"{shown} is plain HTTP: your token is not sent to it; use an https:// address"


def session() -> httpx2.Client:
    """The client that `huggingface_hub` uses, which from now on keeps this module's contract for our requests.

    In this process the library's telemetry is off from now on: with it, the library asks its makers' server about the
    programs around it whenever it describes itself to a Hub, whichever Hub that is.
    """
    from huggingface_hub import constants, get_session

    constants.HF_HUB_DISABLE_TELEMETRY = True
    client = get_session()
    for kind, hook in (("request", _before), ("response", _after)):
        hooks = client.event_hooks[kind]
        if hook not in hooks:
            hooks.append(hook)
    for handler in logging.getLogger("huggingface_hub").handlers:
        if _show_safely not in handler.filters:
            handler.addFilter(_show_safely)
    return client


def http_package() -> Any:
    """The HTTP client of `huggingface_hub`: its 1.x and 2.x use different ones."""
    from huggingface_hub.errors import HfHubHTTPError

    return importlib.import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])


def requested_wait(response: Any) -> float | None:
    """Seconds that the server requests to wait."""
    after = re.fullmatch(r"\s*(\d+)\s*", response.headers.get("Retry-After", ""), re.ASCII)
    limit = re.search(r"r=0;\s*t=(\d+)", response.headers.get("RateLimit", ""), re.ASCII)
    found = after or (limit if response.status_code == 429 else None)
    return None if found is None else float(found[1])


def _before(request: Any) -> None:
    if not _is_ours(request):
        return
    request.headers["User-Agent"] = AGENT
    if is_open(str(request.url)) and request.headers.get("Authorization", "").lower().startswith("bearer"):
        del request.headers["Authorization"]


def _after(response: Any) -> None:
    if not _is_ours(response.request) or not response.has_redirect_location:
        return
    begin, end = response.request.url, response.request.url.join(response.headers["Location"])
    if begin.scheme == "https" and end.scheme != "https":
        raise WsdError(
            f"{one_line(begin)} leads from https to {one_line(end)}, which others could read or change: it is not "
            "followed; check the network's login, or HF_ENDPOINT"
        )


def _is_ours(request: Any) -> bool:
    return str(request.headers.get("User-Agent", "")).startswith(AGENT)


def _own_token(token: str | None) -> str | None:
    from huggingface_hub import get_token
    from huggingface_hub.constants import HF_HUB_DISABLE_IMPLICIT_TOKEN

    return token or (None if HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token())


def _is_this_machine(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _through_proxy(host: str) -> bool:
    """Whether plain HTTP to a host goes through a proxy. An exception counts if it names the host in full, or all."""
    from urllib.request import getproxies

    proxies = getproxies()
    exceptions = {name.strip().strip("[]").lower() for name in proxies.get("no", "").split(",")}
    return bool(proxies.get("http") or proxies.get("all")) and not exceptions & {"*", host.lower()}


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    return parts.scheme.lower(), (parts.hostname or "").lower(), port or {"http": 80, "https": 443}.get(parts.scheme)


def _show_safely(record: logging.LogRecord) -> bool:
    record.msg, record.args = one_line(record.getMessage()), ()
    return True
