"""Published data sets by name: where they are, and their copies on this machine.

Contract: the catalog knows where a set is; its file is fetched into the cache folder once, and used from there. Only
its owner may pass a set on: the package contains none.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from wsd_local.errors import UsageError, WsdError, nearest, reason
from wsd_local.files import replaced
from wsd_local.library.download import TransferProgress, with_retries
from wsd_local.paths import cache_dir, expanded, package_models_dir
from wsd_local.system.inputs import read_toml
from wsd_local.system.network import AGENT, http_package, one_line, session, without_secrets

WAITS = (0.5, 1.0, 2.0, 4.0)
"""Seconds between attempts."""

_HUB = "https://huggingface.co/"


@dataclass(frozen=True, slots=True)
class PublicSet:
    """A data set of the catalog."""

    name: str
    format: str
    url: str
    licence: str
    description: str = ""
    sha256: str | None = None

    @property
    def path(self) -> Path:
        """Path of its copy, if it was fetched."""
        return cache_dir() / "datasets" / self.name / posixpath.basename(urlsplit(self.url).path)


def catalog_datasets() -> dict[str, PublicSet]:
    """All data sets of the catalog."""
    tables = read_toml(package_models_dir() / "catalog.toml").get("datasets", {})
    return {name: PublicSet(name, **table) for name, table in tables.items()}


def dataset_path(name_or_path: str, progress: TransferProgress | None = None) -> tuple[Path, str | None]:
    """A data set's file, and its format where the name states it: a file, else a set of the catalog, fetched if needed.

    `progress` may stop the transfer by raising.

    Raises:
        UsageError: there is neither a file nor a set of that name.
        WsdError: the set is not here, and cannot be fetched.
    """
    path = expanded(name_or_path)
    folder = os.path.isdir(path)  # noqa: PTH112 - this method and the next raise for a name that is too long
    if os.path.exists(path) and not folder:  # noqa: PTH110
        return path, None
    sets = catalog_datasets()
    if name_or_path in sets:
        chosen = sets[name_or_path]
        if not chosen.path.is_file() or chosen.sha256 not in (None, file_digest(chosen.path)):
            _fetch(chosen, progress)
        return chosen.path, chosen.format
    if folder:
        raise UsageError(f"{path}: is a folder; name a file in it")
    if path.suffix or len(path.parts) > 1:
        raise UsageError(f"{path}: no such file")
    raise UsageError(f"{name_or_path}: neither a file nor a data set's name{nearest(name_or_path, list(sets))}")


# -- fetching ------------------------------------------------------------------------------------------------


def _fetch(wanted: PublicSet, progress: TransferProgress | None) -> None:
    from huggingface_hub import is_offline_mode
    from huggingface_hub.constants import ENDPOINT

    if is_offline_mode():
        raise WsdError(f"{wanted.name} must be fetched, and HF_HUB_OFFLINE is set: unset it, or name a file")
    at_hub = wanted.url.startswith(_HUB)
    url = f"{ENDPOINT.rstrip('/')}/{wanted.url.removeprefix(_HUB)}" if at_hub else wanted.url
    shown = without_secrets(url)
    with _explained(wanted.name, shown), replaced(wanted.path) as part:
        with_retries(lambda: download(url, shown, part, progress), WAITS)
        if wanted.sha256 is not None and (digest := file_digest(part)) != wanted.sha256:
            raise WsdError(
                f"{wanted.name}: the bytes are wrong (SHA-256 {digest}, and it should be {wanted.sha256}); none is "
                "kept: try again later, or name a file"
            )


def file_digest(path: Path) -> str:
    """SHA-256 of a file that was just written, or may have changed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(
    url: str, shown: str, part: Path, progress: TransferProgress | None, more: Mapping[str, str] | None = None
) -> None:
    """Write what an address holds to a file.

    Args:
        url: the address.
        shown: what messages call it.
        part: the file.
        progress: sees the bytes; may stop the transfer by raising.
        more: headers beside the usual ones.

    Raises:
        WsdError: it is a web page, or empty.
    """
    from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

    headers = {"User-Agent": AGENT, "Accept-Encoding": "identity", **(more or {})}
    with session().stream("GET", url, headers=headers, timeout=HF_HUB_DOWNLOAD_TIMEOUT) as response:
        hf_raise_for_status(response)
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise WsdError(f"{shown} is a web page, and no data set: check the network's login, or name a file")
        length, done = response.headers.get("Content-Length", ""), 0
        with part.open("wb") as out:
            for chunk in response.iter_bytes():
                out.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, int(length) if length.isdecimal() else done, "download")
        if not done:
            raise WsdError(f"{shown} is empty: try again later, or name a file")


@contextmanager
def _explained(name: str, shown: str) -> Iterator[None]:
    """Turn failures of the network or the disk into errors that a person can act on; `shown` is the address."""
    from huggingface_hub.errors import HfHubHTTPError

    http = http_package()
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise WsdError(f"{name}: {shown} answers {status}: try again later, or name a file") from error
    except (http.HTTPError, http.InvalidURL) as error:
        why = one_line(error) or type(error).__name__
        raise WsdError(f"{name}: {shown} cannot be reached ({why}): check the network, or name a file") from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "free some space, or set WSD_LOCAL_CACHE to a folder on another disk" if full else "check its folder"
        raise WsdError(f"{name}: cannot be kept in {cache_dir()} ({reason(error)}): {hint}") from error
