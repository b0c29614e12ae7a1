"""`wsd-local doctor`: what is installed here and whether it works, as text for a bug report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from wsd_local.cli import terminal
from wsd_local.cli.options import NOTHING, Debug, Given, Json, option, setting_values, settings_named, takes
from wsd_local.cli.tables import print_json
from wsd_local.errors import UsageError
from wsd_local.fields import spelled

SETTINGS = ("base_model", "base_api_key_env", "base_vocab", "ctx")


@takes(settings=settings_named(*SETTINGS))
def doctor(
    *,
    base: Annotated[str | None, option("Also try what a server can do as a base (http://HOST:PORT).")] = None,
    settings: Given = NOTHING,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Print what is installed and whether it works; 1 if something does not."""
    from wsd_local.reports.doctor import diagnose

    found = diagnose(_base(base, settings))
    if as_json:
        print_json(found.as_dict())
    else:
        with terminal.reader_may_leave():
            terminal.write(found.text())
    return 1 if found.problems else 0


def _base(base: str | None, settings: Given) -> Callable[[list[str]], list[str]] | None:
    """What looks at the server that was named.

    Raises:
        UsageError: a setting is given without it, or it is no address.
    """
    if base is None:
        for name in settings:
            raise UsageError(f"--{spelled(name)} is given without --base http://HOST:PORT: give both")
        return None
    from wsd_local.config import read_config
    from wsd_local.library.resolve import model_of_pair, named_pair
    from wsd_local.remote.address import is_address
    from wsd_local.reports.remote_base import base_facts
    from wsd_local.runtime.remote_base import address_of
    from wsd_local.settings import split

    if not is_address(base):
        raise UsageError(f"--base is {base}: doctor looks at a server's address, http://HOST:PORT")
    config = read_config()
    pair = named_pair(config.pair, config.pairs)
    loading = split(setting_values(settings))[1]
    address = address_of(base, loading)

    def facts(problems: list[str]) -> list[str]:
        return base_facts(address, loading, model_of_pair(pair, pair.draft), problems)

    return facts
