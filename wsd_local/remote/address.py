"""Where a base model is served: what a person gives in place of a file.

Contract: a value; nothing is asked. A key is read from an environment variable that is named, never from an option, and
is sent over TLS or to this machine alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from wsd_local.errors import UsageError
from wsd_local.system.network import is_open, without_secrets


def is_address(base: object) -> bool:
    """Whether a base is given by the address of a server, and not by a name or a path."""
    return isinstance(base, str) and base.lower().startswith(("http://", "https://"))


@dataclass(frozen=True, slots=True)
class Address:
    """A server, the model's name there, and the environment variable that holds its key.

    Raises:
        UsageError: the address is none, the variable is empty, or others could read the key on the way.
    """

    url: str
    model: str | None = None
    key_variable: str | None = None

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            usable = False
        if not usable or parts.username or parts.query or parts.fragment:
            raise UsageError(
                f"{without_secrets(self.url)}: is no address of a base: give http://HOST:PORT, and a key by "
                "--base-api-key-env NAME"
            )
        path = parts.path.rstrip("/").removesuffix("/v1")
        object.__setattr__(self, "url", urlunsplit((parts.scheme.lower(), parts.netloc, path, "", "")))
        if self.key is not None and is_open(self.url):
            raise UsageError(f"{self.url}: others could read the key in {self.key_variable} on the way; use https://")

    @property
    def key(self) -> str | None:
        """The key; None if none is to be sent.

        Raises:
            UsageError: the variable is empty, or holds what no header can.
        """
        if self.key_variable is None:
            return None
        key = os.environ.get(self.key_variable, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            raise UsageError(f"base-api-key-env is {self.key_variable}: there is no key in that environment variable")
        return key
