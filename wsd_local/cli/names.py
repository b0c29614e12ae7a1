"""Names that shell completion offers: pairs, models, data sets, formats, exports, chats.

Contract: called while a person types, so nothing is loaded or fetched, and errors are not shown (cyclopts
discards those of completers). Each returns names, most with a description.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from wsd_local.system.visible import visible

if TYPE_CHECKING:
    from cyclopts.completion import CompletionContext


def pairs(_context: CompletionContext) -> dict[str, str]:
    """Pairs of the catalog and of the configuration."""
    from wsd_local.config import read_config
    from wsd_local.library.catalog import catalog_pairs

    return _shown((name, entry.description) for name, entry in {**catalog_pairs(), **read_config().pairs}.items())


def models(_context: CompletionContext) -> dict[str, str]:
    """Models of the catalog, and those with a name on this machine."""
    from wsd_local.library.catalog import catalog_models

    return {name: entry.description for name, entry in catalog_models().items()} | own_models(_context)


def own_models(_context: CompletionContext) -> dict[str, str]:
    """Models that were pulled, imported or made here."""
    from wsd_local.library.registry import known

    return _shown((name, str(found.path)) for name, found in known().items())


def base_formats(_context: CompletionContext) -> list[str]:
    """Base formats that are known by name."""
    from wsd_local.prompts.known_formats import known_formats

    return list(known_formats())


def pullable(context: CompletionContext) -> dict[str, str]:
    """What `models pull` can fetch by name: pairs and models of the catalog."""
    from wsd_local.library.catalog import catalog_models

    return pairs(context) | {name: one.description for name, one in catalog_models().items() if one.repo is not None}


def data_sets(_context: CompletionContext) -> dict[str, str]:
    """Published data sets."""
    from wsd_local.datasets import catalog_datasets

    return {name: one.description for name, one in catalog_datasets().items()}


def formats(_context: CompletionContext) -> list[str]:
    """Formats of data sets."""
    from wsd_local.datasets import FORMATS

    return list(FORMATS)


def exports(_context: CompletionContext) -> list[str]:
    """Forms in which a run can be exported."""
    from wsd_local.datasets.exports import EXPORTS

    return list(EXPORTS)


def chats(_context: CompletionContext) -> dict[str, str]:
    """Numbers of chats, with their titles."""
    from wsd_local.store import Store
    from wsd_local.store.file import default_path

    if not default_path().exists():  # a look at the chats makes no file
        return {}
    with Store() as store:
        return _shown((str(chat.id), chat.title) for chat in store.chats.find(""))


def _shown(described: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Descriptions as a terminal may show them: control characters in them are symbols."""
    return {name: visible(text, keep_newlines=False) for name, text in described}
