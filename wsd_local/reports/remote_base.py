"""What a server can do as the base of a pair, for `doctor --base`.

Contract: each capability was tried. A server that cannot be a base is a problem in one line, no error.
"""

from __future__ import annotations

from pathlib import Path

from wsd_local.errors import WsdError
from wsd_local.remote.address import Address
from wsd_local.runtime.remote_base import RemoteBase
from wsd_local.settings import LoadSettings
from wsd_local.units import plural


def base_facts(address: Address, loading: LoadSettings, draft: Path, problems: list[str]) -> list[str]:
    """Lines about a server; what is wrong is added to `problems`."""
    base = RemoteBase(address, loading, draft, lambda: None)
    lines = [f"address: {address.url}"]
    try:
        found = base.recognise()
        trip = base.pace.round_trip_s or 0.0
        lines += [
            f"kind: {found.server.kind}{f' {found.version}' if found.version else ''}",
            f"model: {found.server.model}",
            f"context: {'it does not say' if found.n_ctx is None else plural(found.n_ctx, 'token')}; {base.n_ctx} used",
            f"round trip: {trip * 1000:.1f} ms; at least {plural(base.pace.chunk(1), 'token')} checked together",
            f"requests at once: {'several' if found.server.at_once else 'one'}",
            f"penalties of repeated tokens: {'as here' if found.server.penalises else 'not as here, refused'}",
        ]
        _, vocabulary = base.connect()
        lines.append(f"vocabulary: {base.vocabulary_source}, divides texts as the server does ({vocabulary.name})")
        base.open(None).close()
        lines += ["goes on from given tokens: yes", "scores given tokens: yes, as it does those that it writes"]
        lines.append("distributions of all tokens: no; so the rule is window, and there is no constraint")
    except WsdError as error:
        problems.append(str(error))
        lines.append("cannot be a base, see problems")
    finally:
        base.close()
    return lines
