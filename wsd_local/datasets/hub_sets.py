"""Data sets of the Hub: one file of a repository, named OWNER/NAME or OWNER/NAME:FILE, and its copy on this machine.

Contract: a file is fetched into the cache folder once for each commit, and used from there; without the network the
newest copy is used. It appears under its name only when its size and SHA-256 are those that the Hub states. Names of
files in a repository are not trusted, and no code of one is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from wsd_local.datasets.public import WAITS, download, file_digest
from wsd_local.errors import ModelError, UsageError, WsdError
from wsd_local.files import replaced
from wsd_local.library.download import TransferProgress, with_retries
from wsd_local.library.hub_address import HubAddress
from wsd_local.library.repo_files import is_safe, names_repository
from wsd_local.paths import cache_dir, expanded
from wsd_local.system.network import AGENT, session

_TIMEOUT = 30.0
_DATA = re.compile(r"\.(?:parquet|jsonl|ndjson|json)(?:\.gz)?$", re.IGNORECASE)
_DESCRIBING = re.compile(r"(?:^|/)(?:dataset_infos?|README|package|config)\.", re.IGNORECASE)
_TRAIN = re.compile(r"(?:^|[/_.-])train(?:$|[/_.-])", re.IGNORECASE)
_LISTED = 8


def names_hub_set(text: str) -> bool:
    """Whether a text has the form OWNER/NAME or OWNER/NAME:FILE, and names neither a path that exists nor a file."""
    repo, colon, _ = text.partition(":")
    if not names_repository(repo) or expanded(repo).exists():
        return False
    return bool(colon) or _DATA.search(repo) is None


def hub_set_path(name: str, progress: TransferProgress | None = None) -> Path:
    """The copy of a data set's file, fetched if needed; `progress` may stop the transfer by raising.

    Raises:
        UsageError: the repository has no such file, or several could be meant.
        WsdError: there is no such repository, it may not be read, or the Hub cannot be reached, or fails.
    """
    from huggingface_hub import HfApi, is_offline_mode
    from huggingface_hub.constants import ENDPOINT

    repo, _, wanted = name.partition(":")
    folder = cache_dir() / "datasets" / repo.replace("/", "--")
    if is_offline_mode():
        return _kept(folder, repo, wanted)
    address = HubAddress(ENDPOINT.rstrip("/"), None)
    session()
    api = HfApi(endpoint=address.endpoint, token=address.sent_token, library_name=AGENT)
    with _no_model(), address.explained(f"datasets/{repo}", folder):
        info = with_retries(lambda: api.dataset_info(repo, files_metadata=True, timeout=_TIMEOUT), WAITS)
        files = {one.rfilename: one for one in info.siblings or () if is_safe(one.rfilename)}
        chosen, commit = files[_chosen(repo, list(files), wanted)], address.hexadecimal(info.sha)
        path = folder / commit / chosen.rfilename
        if path.is_file():
            return path
        url = f"{address.endpoint}/datasets/{repo}/resolve/{commit}/{quote(chosen.rfilename)}"
        token = address.sent_token
        headers = {"Authorization": f"Bearer {token}"} if isinstance(token, str) else {}
        with replaced(path) as part:
            with_retries(lambda: download(url, name, part, progress, headers), WAITS)
            stated = None if chosen.lfs is None else chosen.lfs.sha256
            if chosen.size not in (None, part.stat().st_size) or stated not in (None, file_digest(part)):
                raise WsdError(f"{name}: the bytes are not those that the Hub states; none is kept: try again later")
    return path


@contextmanager
def _no_model() -> Iterator[None]:
    """Let errors about a repository be none about models."""
    try:
        yield
    except ModelError as error:
        raise WsdError(str(error)) from error


def _kept(folder: Path, repo: str, wanted: str) -> Path:
    """The newest copy of a file that is here."""
    commits = sorted(folder.iterdir(), key=lambda one: -one.stat().st_mtime) if folder.is_dir() else []
    for commit in commits:
        names = [path.relative_to(commit).as_posix() for path in commit.rglob("*") if path.is_file()]
        if names and (not wanted or wanted in names):
            return commit / _chosen(repo, names, wanted)
    raise WsdError(f"{repo} must be fetched, and HF_HUB_OFFLINE is set: unset it, or name a file")


def _chosen(repo: str, paths: Sequence[str], wanted: str) -> str:
    """The file that is meant: the named one, else the only one with data, else the only one to train on."""
    if wanted:
        if wanted in paths:
            return wanted
        raise UsageError(f"{repo} has no file {wanted!r}; it has {_listed(_data(paths) or paths)}")
    found = _data(paths)
    train = [path for path in found if _TRAIN.search(_DATA.sub("", path))]
    for meant in (found, train):
        if len(meant) == 1:
            return meant[0]
    if not found:
        raise UsageError(f"{repo} holds no JSONL, JSON or Parquet file; it has {_listed(paths)}")
    some = train or found
    raise UsageError(f"{repo} holds several files: name one, as {repo}:{some[0]}; it has {_listed(some)}")


def _data(paths: Sequence[str]) -> list[str]:
    return sorted(path for path in paths if _DATA.search(path) and not _DESCRIBING.search(path))


def _listed(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
    return ", ".join(paths[:_LISTED]) + more if paths else "none"
