"""Models from the Hugging Face Hub: found by name, fetched into the Hub's own cache, checked, and remembered.

Contract: `Hub.plan` and `Hub.checkpoint` say what is to be fetched and transfer none of it; `Hub.obtain` transfers it,
`Hub.fetch` also remembers it by a name. A file appears in the cache only when its size and SHA-256 are those that the
Hub states. The bytes of an interrupted transfer are kept, and the next one resumes there: `huggingface_hub` finds,
authorises and caches, but it drops the bytes of a transfer that was cut off, so files are written here (`download`).
Nothing is printed. Names of files in a repository are not trusted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from wsd_local.errors import ModelError, UsageError, WsdError, nearest
from wsd_local.files import flush_folder, free_space, remember_sha256
from wsd_local.library.catalog import ModelEntry, PairEntry, catalog_models
from wsd_local.library.download import (
    Remote,
    RemoteFile,
    Report,
    TransferPhase,
    TransferProgress,
    Xet,
    complete,
    locked,
    size_of,
    verify,
    with_retries,
)
from wsd_local.library.hub_address import HubAddress
from wsd_local.library.hub_cache import HubCache, check, from_cache
from wsd_local.library.registry import Known, known, remember
from wsd_local.library.repo_files import checked_repository, checkpoint_files, choose, is_safe, name_for
from wsd_local.library.resolve import all_pairs, catalog_model, checked_name, how_to_get, models_of
from wsd_local.paths import package_models_dir
from wsd_local.system.network import AGENT, same_origin, session
from wsd_local.units import gb

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

T = TypeVar("T")
D_co = TypeVar("D_co", covariant=True)
_Choice = Callable[[Sequence[str]], tuple[str, tuple[str, ...]]]
"""Chooses from the paths in a repository: the name of the model, and its files."""

WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts; after one that transfers bytes they start anew."""

_API_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Download:
    """One model or checkpoint on the Hub at one commit; `missing` counts the bytes that are not on this machine yet.

    `pinned` if the catalog names the commit, and so it need not be the newest.
    """

    name: str
    repo: str
    revision: str
    files: tuple[RemoteFile, ...]
    missing: int
    pinned: bool = False

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Ready:
    """A model that is here and need not be fetched; `packaged` if it is part of the program."""

    name: str
    path: Path
    packaged: bool = False


@dataclass(frozen=True, slots=True)
class Steps(Generic[D_co]):
    """What brings a name here: models to fetch, models that are here already, models that must be converted."""

    downloads: tuple[D_co, ...] = ()
    ready: tuple[Ready, ...] = ()
    to_convert: tuple[ModelEntry, ...] = ()

    def __add__(self: Steps[T], other: Steps[T]) -> Steps[T]:
        return Steps(self.downloads + other.downloads, self.ready + other.ready, self.to_convert + other.to_convert)


@dataclass(frozen=True, slots=True)
class Hub:
    """The Hub, or a mirror of it.

    `endpoint`, `cache` and `token` are those of the environment (HF_ENDPOINT; HF_HOME; HF_TOKEN or `hf auth login`)
    if they are not given; `waits` are the seconds between attempts, whose number is one more.
    """

    endpoint: str | None = None
    cache: Path | None = None
    token: str | None = None
    waits: tuple[float, ...] = WAITS

    # -- plan ------------------------------------------------------------------------------------------------

    def plan(self, what: str, name: str | None = None, own: Mapping[str, PairEntry] | None = None) -> Steps[Download]:
        """The steps that bring a pair, a model of the catalog, or OWNER/NAME[:QUANTISATION or file] here.

        `name` is the model's name on this machine; `own` are the user's pairs.

        Raises:
            UsageError: the text names nothing that could be fetched, or `name` cannot be used.
            ModelError: there is no such pair, model, repository or file, or it must be converted, or may not be read.
            WsdError: the Hub cannot be reached, or fails.
        """
        pairs, models = all_pairs(own), catalog_models()
        if what in pairs:
            if name is not None:
                raise UsageError(f"{what} is a pair: --as names one model")
            steps: Steps[Download] = Steps()
            for one in dict.fromkeys((pairs[what].draft, pairs[what].base)):
                steps += self._step(one, None)
            return steps
        if "/" not in what and what not in models and what not in known():
            raise ModelError(f"there is no pair or model {what!r}{nearest(what, [*pairs, *models])}")
        steps = self._step(what, name)
        if steps.to_convert:
            raise ModelError(f"{what} cannot be fetched as it is: {how_to_get(steps.to_convert[0])}")
        return steps

    def checkpoint(self, repo: str, *, adapters: bool = False) -> Download:
        """The files of a checkpoint that converting needs: its weights, and their description.

        With `adapters` a LoRA adapter will do.

        Raises:
            UsageError: the text names no repository.
            ModelError: there is no such repository, it may not be read, or it holds no checkpoint.
            WsdError: the Hub cannot be reached, or fails.
        """
        name = checked_repository(repo).rpartition("/")[2]
        pin = next(iter({entry.revision for entry in models_of(repo) if entry.file is None}), None)
        return self._chosen(repo, repo, lambda paths: (name, checkpoint_files(repo, paths, adapters=adapters)), pin)

    def configuration(self, repo: str) -> Download:
        """The configuration of a checkpoint alone; raises what `checkpoint` does."""

        def choice(paths: Sequence[str]) -> tuple[str, tuple[str, ...]]:
            if "config.json" not in paths:
                raise ModelError(f"{repo}: holds no config.json, and so no checkpoint")
            return repo.rpartition("/")[2], ("config.json",)

        return self._chosen(checked_repository(repo), repo, choice, None)

    def _step(self, what: str, name: str | None) -> Steps[Download]:
        entry, here = catalog_model(what), known().get(what)
        source, file = entry or here, Path(os.path.expanduser(what))  # noqa: PTH111 - the method raises for ~nobody
        if name is not None and name != what:
            checked_name(name, what.partition(":")[0] if source is None else source.repo)
        if here is not None and here.origin != "pulled" and all(path.exists() for path in here.paths):
            return Steps(ready=(Ready(what, here.path),))
        if entry is None and here is not None and here.repo is not None and here.revision is not None:
            wanted = here.path.as_posix().partition(f"/{here.revision}/")[2]
            return Steps((self._download(here.repo, wanted or None, name or what),))
        if entry is None and os.path.isfile(file):  # noqa: PTH113 - the method raises for a name that is too long
            return Steps(ready=(Ready(what, file),))
        if entry is None and file.suffix == ".gguf" and len(file.parts) != 2 and ":" not in what:
            raise ModelError(f"{file}: no such file")
        if entry is None:
            repo, _, quantization = what.partition(":")
            return Steps((self._download(checked_repository(repo), quantization or None, name),))
        if entry.path is not None:
            return Steps(ready=(Ready(what, package_models_dir() / entry.path, packaged=True),))
        if entry.repo is None or entry.file is None:
            return Steps(to_convert=(entry,))
        return Steps((self._download(entry.repo, entry.file, name or what, entry.revision),))

    def _download(self, repo: str, wanted: str | None, name: str | None, revision: str | None = None) -> Download:
        def choice(paths: Sequence[str]) -> tuple[str, tuple[str, ...]]:
            model = choose(repo, paths, wanted)
            return name or name_for(repo, model, known()), model.files

        return self._chosen(repo, repo if wanted is None else f"{repo}:{wanted}", choice, revision)

    def _chosen(self, repo: str, what: str, choice: _Choice, revision: str | None) -> Download:
        from huggingface_hub import is_offline_mode

        with self._address.explained(repo, self._cache.folder):
            if is_offline_mode():
                download = self._cached(repo, what, choice, revision)
            else:
                info = self._retried(lambda: self._info(repo, revision))
                listed = {one.rfilename: one for one in info.siblings or () if is_safe(one.rfilename)}
                commit = self._address.hexadecimal(info.sha)
                if revision not in (None, commit):
                    raise self._address.stranger()
                name, paths = choice(list(listed))
                files = tuple(self._described(repo, commit, listed[path]) for path in paths)
                missing = sum(self._cache.missing(repo, commit, file) for file in files)
                download = Download(name, repo, commit, files, missing)
        files = tuple(_pinned(repo, file) for file in download.files)
        return replace(download, files=files, pinned=revision is not None)

    def _info(self, repo: str, revision: str | None) -> ModelInfo:
        from huggingface_hub import HfApi

        session()
        api = HfApi(endpoint=self._address.endpoint, token=self._address.sent_token, library_name=AGENT)
        return api.model_info(repo, revision=revision, files_metadata=True, timeout=_API_TIMEOUT)

    def _described(self, repo: str, commit: str, listed: RepoSibling) -> RemoteFile:
        path, size = listed.rfilename, listed.size
        sha256 = None if listed.lfs is None else self._address.hexadecimal(listed.lfs.sha256)
        stated = sha256 or listed.blob_id
        if self._cache.pointer(repo, commit, path).is_file() and stated is not None and size is not None:
            return RemoteFile(path, size, self._address.hexadecimal(stated), sha256)
        found = self._retried(lambda: self._head(repo, commit, path))
        blob, xet = self._address.hexadecimal(found.etag), found.xet_file_data
        size = found.size if size is None else size
        in_git = listed.blob_id if listed.lfs is None and len(blob) == 40 else None
        if size is None or found.size not in (None, size) or sha256 not in (None, blob) or in_git not in (None, blob):
            raise WsdError(f"{self._address.shown} contradicts itself about {path} of {repo}: try again later")
        # The token is sent along to the chunk storage's door, which must be the Hub's own.
        by_xet = xet is not None and same_origin(xet.refresh_route, self._address.endpoint)
        return RemoteFile(
            path,
            size,
            blob,
            sha256=blob if len(blob) == 64 else None,
            xet=Xet(xet.file_hash, xet.refresh_route) if xet is not None and by_xet else None,
        )

    def _head(self, repo: str, commit: str, path: str) -> HfFileMetadata:
        from huggingface_hub import get_hf_file_metadata

        session()
        url = self._address.url(repo, commit, path)
        return get_hf_file_metadata(
            url, endpoint=self._address.endpoint, token=self._address.sent_token, library_name=AGENT
        )

    def _retried(self, call: Callable[[], T]) -> T:
        from huggingface_hub.errors import HfHubHTTPError

        try:
            return with_retries(call, self.waits)
        except HfHubHTTPError:  # some are ValueErrors too
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self._address.stranger() from error

    def _cached(self, repo: str, what: str, choice: _Choice, revision: str | None) -> Download:
        """Without the network: what the cache holds, of the main branch if it can be had."""
        refused: ModelError | None = None
        for snapshot in self._cache.snapshots(repo):
            if revision not in (None, snapshot.name):
                continue
            there = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]
            try:
                name, paths = choice(there)
            except ModelError as error:
                refused = refused or error
                continue
            files = tuple(from_cache(snapshot, path) for path in paths)
            return Download(name, repo, snapshot.name, files, 0)
        raise WsdError(f"{what} is not in the cache, and HF_HUB_OFFLINE is set: unset it to fetch") from refused

    # -- fetch -----------------------------------------------------------------------------------------------

    def require_space(self, downloads: Iterable[Download]) -> None:
        """See whether the disk of the cache has room for what is missing.

        Raises:
            WsdError: it has not; the message says how much is missing.
        """
        needed, free = sum(download.missing for download in downloads), free_space(self._cache.folder)
        if needed > free:
            raise WsdError(
                f"{gb(needed)} must be fetched into {self._cache.folder}, and {gb(free)} are free: "
                f"{gb(needed - free)} are missing; free as much, or set HF_HOME to a folder on another disk"
            )

    def fetch(self, download: Download, progress: TransferProgress | None = None) -> Known:
        """Bring a model into the cache (see `obtain`), and remember it by its name.

        Raises:
            ModelError: the repository or a file of it may not be read, or is gone.
            WsdError: the disk is full, the Hub cannot be reached or fails, or the bytes are wrong (and removed).
        """
        paths = self.obtain(download, progress)
        entry = Known(download.name, paths, "pulled", download.repo, download.revision)
        remember(entry)
        return entry

    def obtain(self, download: Download, progress: TransferProgress | None = None) -> tuple[Path, ...]:
        """Bring files into the cache and check them: their paths. What is there is not fetched again.

        `progress` may stop the transfer by raising; the bytes up to then are kept for the next time.

        Raises:
            ModelError: the repository or a file of it may not be read, or is gone.
            WsdError: the disk is full, the Hub cannot be reached or fails, or the bytes are wrong (and removed).
        """
        before, paths = 0, []
        with self._address.explained(download.repo, self._cache.folder):
            self.require_space([download])
            for file in download.files:

                def report(done: int, phase: TransferPhase, before: int = before) -> None:
                    if progress is not None:
                        progress(before + done, download.size, phase)

                paths.append(self._obtained(download, file, report))
                before += file.size
            if not download.pinned:
                self._cache.note_commit(download.repo, download.revision)
        return tuple(paths)

    def _obtained(self, download: Download, file: RemoteFile, report: Report) -> Path:
        cache, address, repo = self._cache, self._address, download.repo
        pointer = cache.pointer(repo, download.revision, file.path)
        if pointer.is_file():
            check(pointer, file, report)
            return pointer
        blob, part, lock = cache.blob(repo, file), cache.part(repo, file), cache.lock(repo, file)
        for folder in (blob.parent, lock.parent, pointer.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with locked(lock, lambda: report(size_of(part), "download")):
            wrote = not blob.is_file()
            if wrote:
                url = address.url(repo, download.revision, file.path)
                remote = Remote(address.shown, address.endpoint, url, self.token, self.waits)
                sha256 = verify(part, file, complete(part, file, remote, report), report)
                part.replace(blob)
                flush_folder(blob.parent)
                remember_sha256(blob, sha256)
            else:
                check(blob, file, report)
            cache.link(repo, download.revision, file, wrote=wrote)
        return pointer

    # -- where -----------------------------------------------------------------------------------------------

    @property
    def note(self) -> str | None:
        """One line that a person should know before a transfer: that the token is not sent."""
        return self._address.note

    @property
    def _address(self) -> HubAddress:
        from huggingface_hub.constants import ENDPOINT

        return HubAddress((self.endpoint or ENDPOINT).rstrip("/"), self.token)

    @property
    def _cache(self) -> HubCache:
        from huggingface_hub.constants import HF_HUB_CACHE

        return HubCache((self.cache or Path(HF_HUB_CACHE)).expanduser().resolve())


def _pinned(repo: str, file: RemoteFile) -> RemoteFile:
    """A file with the SHA-256 that the catalog states, where it states one."""
    for entry in catalog_models().values():
        if entry.sha256 is None or (entry.repo, entry.file) != (repo, file.path):
            continue
        if file.sha256 not in (None, entry.sha256):
            raise ModelError(
                f"{repo}: {file.path} has other bytes than the catalog knows (SHA-256 {file.sha256}, and it should be "
                f"{entry.sha256}); fetch the known ones with: wsd-local models pull {entry.name}"
            )
        return replace(file, sha256=entry.sha256)
    return file
