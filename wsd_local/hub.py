"""Models from the Hugging Face Hub: found by name, fetched into the Hub's own cache, checked, and remembered.

Contract: `Hub.plan` says what is to be fetched and transfers no model; `Hub.fetch` transfers it, and a file appears in
the cache only when its size and SHA-256 are those that the Hub states. What an interrupted transfer brought stays, and
the next one goes on from it: `huggingface_hub` finds, authorises and caches, but it drops the bytes of a transfer that
was cut off, so they are written here. Nothing is printed. Names of files in a repository are not trusted.
"""

from __future__ import annotations

import difflib
import errno
import importlib.util
import os
import re
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from wsd_local.atomic import write_text
from wsd_local.catalog import ModelEntry, PairEntry, catalog_models, catalog_pairs, how_to_get
from wsd_local.errors import ModelError, UsageError, WsdError
from wsd_local.hashing import file_sha256
from wsd_local.paths import package_models_dir
from wsd_local.registry import Known, known, remember
from wsd_local.settings import nearest
from wsd_local.units import gb

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import HfFileMetadata
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import RepoSibling

T = TypeVar("T")
Phase = Literal["download", "verify"]
Progress = Callable[[int, int, Phase], None]
"""Told the bytes done, their total, and what is done with them; what it raises stops the transfer."""
_Tell = Callable[[int, Phase], None]

WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts; one that brings bytes starts the row again."""

LONGEST_WAIT = 120.0
"""A server that asks for more than this is not waited for."""

PREFERRED = ("Q4_K_M", "Q4_K_S", "Q4_0", "Q5_K_M", "Q6_K", "Q8_0")
"""What is taken of several quantisations if none is named and the catalog names none."""

_API_TIMEOUT = 30.0
_PASSING = (408, 416, 429, 500, 502, 503, 504)
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf", re.IGNORECASE)
_PIECE = re.compile(r"(?P<stem>.+)\.gguf[.-](part|split)[.-]?(\d+of\d+|[a-z]{1,2}|\d+)", re.IGNORECASE)
_NO_MODEL = re.compile(r"mmproj|^imatrix|imatrix\.gguf$", re.IGNORECASE)
_QUANT = re.compile(r"(?:^|[-._])((?:UD-)?(?:I?Q\d\w*|TQ\d_\d|BF16|FP?16|FP?32|MXFP4\w*))(?=$|[-.])", re.IGNORECASE)
_HEX = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


# -- what is in a repository ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gguf:
    """One model among the files of a repository: a GGUF file, or the parts of a split one in their order."""

    stem: str
    files: tuple[str, ...]
    parts: int = 1

    @property
    def label(self) -> str:
        """Its quantisation if the name tells it, else the name."""
        found = _QUANT.findall(self.stem.rpartition("/")[2])
        return str(found[-1]).upper() if found else self.files[0]

    def answers(self, wanted: str) -> bool:
        """Whether a person means it by a quantisation, a file's name, or its path in the repository."""
        wanted, stem = wanted.lower(), self.stem.lower()
        names = {name for path in self.files for name in (path.lower(), path.lower().rpartition("/")[2])}
        ends = re.search(rf"(?:^|[-._/]){re.escape(wanted)}$", stem) is not None
        return wanted in names or wanted == self.label.lower() or ends


def models_in(paths: Iterable[str]) -> list[Gguf]:
    """Models among the paths of a repository; projectors and importance matrices are none."""
    found: dict[tuple[str, int], dict[int, str]] = {}
    for path in sorted(paths):
        if not path.lower().endswith(".gguf") or _NO_MODEL.search(path.rpartition("/")[2]):
            continue
        if (part := _SPLIT.fullmatch(path)) is not None:
            found.setdefault((part["stem"], int(part["parts"])), {})[int(part["part"])] = path
        else:
            found[path[: -len(".gguf")], 1] = {1: path}
    return [Gguf(stem, tuple(files[i] for i in sorted(files)), parts) for (stem, parts), files in found.items()]


def choose(repo: str, paths: Sequence[str], wanted: str | None = None) -> Gguf:
    """The model that is meant: the one `wanted` names (quantisation or file).

    Without `wanted`: the only one; else the catalog's; else the first quantisation of `PREFERRED` that is there once.

    Raises:
        ModelError: there is none, several could be meant, or parts are missing; the message lists what is there.
    """
    models = models_in(paths)
    pieces = sorted({piece["stem"] for path in paths if (piece := _PIECE.fullmatch(path)) is not None})
    if wanted is None:
        meant = models if len(models) == 1 else _by_default(repo, models)
    else:
        meant = [model for model in models if wanted in model.files] or [m for m in models if m.answers(wanted)]
    if len(meant) == 1:
        if len(meant[0].files) != meant[0].parts:
            raise ModelError(f"{repo}: {meant[0].stem} is split into {meant[0].parts} parts, and some are not there")
        return meant[0]
    cut = pieces if wanted is None else [one for one in pieces if Gguf(one, (one,)).answers(_whole(wanted))]
    if cut and not (meant or (wanted is None and models)):
        others = f"; take another: {_listed(models)}" if models else ""
        raise ModelError(f"{repo}: {cut[0]} is cut into pieces that only a person can join{others}")
    if not models:
        raise ModelError(_without_gguf(repo, paths))
    if wanted is None:
        raise ModelError(f"{repo} holds several models; name one, as {repo}:{{one of}} {_listed(models)}")
    if meant:
        names = ", ".join(model.files[0] for model in meant)
        raise ModelError(f"{repo}: {wanted!r} could be {names}; name the file, as {repo}:{meant[0].files[0]}")
    raise ModelError(f"{repo} has no {wanted!r}; it has {_listed(models, wanted)}")


def _by_default(repo: str, models: list[Gguf]) -> list[Gguf]:
    ours = [entry.file for entry in catalog_models().values() if entry.repo == repo]
    for file in ours:
        if named := [model for model in models if file in model.files]:
            return named
    for quantization in PREFERRED:
        if len(fitting := [model for model in models if model.label == quantization]) == 1:
            return fitting
    return []


def _listed(models: list[Gguf], wanted: str = "") -> str:
    """What is there, nearest first; a name where the quantisation does not tell two models apart."""
    labels = [model.label for model in models]
    shown = [label if labels.count(label) == 1 else model.files[0] for label, model in zip(labels, models, strict=True)]
    if wanted:
        shown.sort(key=lambda one: -difflib.SequenceMatcher(None, one.lower(), wanted.lower()).ratio())
    return ", ".join(shown[:15]) + (f" and {len(shown) - 15} more" if len(shown) > 15 else "")


def _without_gguf(repo: str, paths: Sequence[str]) -> str:
    if any(path.endswith((".safetensors", ".bin")) for path in paths):
        return f"{repo} holds no GGUF file but a checkpoint; convert it with: wsd-local models convert {repo}"
    return f"{repo} holds no GGUF file: name a repository that does, or a checkpoint to wsd-local models convert"


def _whole(name: str) -> str:
    """The name of a file that was cut into pieces, from that of a piece."""
    return re.sub(r"\.gguf.*", "", name, flags=re.IGNORECASE)


def _safe(path: str) -> bool:
    """Whether a path of a repository stays inside it on every system, and can be shown."""
    parts = path.split("/")
    return path.isprintable() and not re.search(r"[\\:]", path) and all(part not in ("", ".", "..") for part in parts)


# -- what is to be fetched -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Xet:
    """Where the Hub's chunk storage has a file."""

    hash: str
    refresh: str


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the Hub describes it.

    `blob` is its name among the bytes in the cache; `sha256` is None if the Hub does not state it, as for a small file
    that is kept in git.
    """

    path: str
    size: int
    blob: str
    sha256: str | None = None
    xet: Xet | None = None


@dataclass(frozen=True, slots=True)
class Download:
    """One model on the Hub at one commit; `missing` counts the bytes that are not on this machine yet."""

    name: str
    repo: str
    revision: str
    files: tuple[RemoteFile, ...]
    missing: int

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def already_there(self) -> bool:
        """Whether nothing has to be transferred."""
        return self.missing == 0


@dataclass(frozen=True, slots=True)
class Ready:
    """A model that is here without being fetched; `packaged` if it is part of the program."""

    name: str
    path: Path
    packaged: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What a name comes to: models to fetch, those that are here without that, those that must be converted."""

    downloads: tuple[Download, ...] = ()
    ready: tuple[Ready, ...] = ()
    to_convert: tuple[ModelEntry, ...] = ()

    def __add__(self, other: Plan) -> Plan:
        return Plan(self.downloads + other.downloads, self.ready + other.ready, self.to_convert + other.to_convert)


@dataclass(frozen=True, slots=True)
class Hub:
    """The Hub, or a mirror of it.

    `endpoint`, `cache` and `token` are what the environment says (HF_ENDPOINT; HF_HOME; HF_TOKEN or `hf auth login`)
    if they are not given; `waits` are the seconds between attempts, and so say how many there are.
    """

    endpoint: str | None = None
    cache: Path | None = None
    token: str | None = None
    waits: tuple[float, ...] = WAITS

    # -- plan ------------------------------------------------------------------------------------------------

    def plan(self, what: str, name: str | None = None, own: dict[str, PairEntry] | None = None) -> Plan:
        """What must be done to have a pair, a model of the catalog, or OWNER/NAME[:QUANTISATION or file] here.

        `name` is what the model is to be called; `own` are the user's pairs.

        Raises:
            UsageError: the text names nothing that could be fetched, or `name` cannot be used.
            ModelError: there is no such pair, model, repository or file, or it must be converted, or may not be read.
            WsdError: the Hub cannot be reached, or fails.
        """
        pairs, models = catalog_pairs() | (own or {}), catalog_models()
        if what in pairs:
            if name is not None:
                raise UsageError(f"{what} is a pair: --as names one model")
            plan = Plan()
            for one in dict.fromkeys((pairs[what].draft, pairs[what].base)):
                plan += self._step(one, None)
            return plan
        if "/" not in what and what not in models and what not in known():
            raise ModelError(f"there is no pair or model {what!r}{nearest(what, [*pairs, *models])}")
        plan = self._step(what, name)
        if plan.to_convert:
            raise ModelError(f"{what} cannot be fetched as it is: {how_to_get(plan.to_convert[0])}")
        return plan

    def _step(self, what: str, name: str | None) -> Plan:
        entry, here = catalog_models().get(what), known().get(what)
        source, file = entry or here, Path(os.path.expanduser(what))  # noqa: PTH111 - the method raises for ~nobody
        if name is not None and name != what:
            _check_name(name, what.partition(":")[0] if source is None else source.repo)
        if here is not None and here.origin != "pulled" and all(path.exists() for path in here.paths):
            return Plan(ready=(Ready(what, here.path),))
        if entry is None and here is not None and here.repo is not None and here.revision is not None:
            wanted = here.path.as_posix().partition(f"/{here.revision}/")[2]
            return Plan((self._download(here.repo, wanted or None, name or what),))
        if entry is None and file.suffix == ".gguf" and file.is_file():
            return Plan(ready=(Ready(what, file),))
        if entry is None:
            repo, _, quantization = what.partition(":")
            return Plan((self._download(_checked_repo(repo), quantization or None, name),))
        if entry.path is not None:
            return Plan(ready=(Ready(what, package_models_dir() / entry.path, packaged=True),))
        if entry.repo is None or entry.file is None:
            return Plan(to_convert=(entry,))
        return Plan((self._download(entry.repo, entry.file, name or what),))

    def _download(self, repo: str, wanted: str | None, name: str | None) -> Download:
        from huggingface_hub import HfApi, is_offline_mode

        with self._explained(repo):
            if is_offline_mode():
                return self._cached(repo, wanted, name)
            api = HfApi(endpoint=self._endpoint, token=self.token)
            info = self._asked(lambda: api.model_info(repo, files_metadata=True, timeout=_API_TIMEOUT))
            listed = {one.rfilename: one for one in info.siblings or () if _safe(one.rfilename)}
            commit = self._hexadecimal(info.sha)
            model = choose(repo, list(listed), wanted)
            files = tuple(self._described(repo, commit, listed[path]) for path in model.files)
        missing = sum(self._missing(repo, commit, file) for file in files)
        return Download(name or _name_for(repo, model), repo, commit, files, missing)

    def _described(self, repo: str, commit: str, listed: RepoSibling) -> RemoteFile:
        path, size = listed.rfilename, listed.size
        sha256 = None if listed.lfs is None else self._hexadecimal(listed.lfs.sha256)
        if self._pointer(repo, commit, path).is_file() and sha256 is not None and size is not None:
            return RemoteFile(path, size, sha256, sha256)
        found = self._asked(lambda: self._head(repo, commit, path))
        blob, xet = self._hexadecimal(found.etag), found.xet_file_data
        size = found.size if size is None else size
        if size is None or found.size not in (None, size) or sha256 not in (None, blob):
            raise WsdError(f"{self._endpoint} contradicts itself about {path} of {repo}: try again later")
        return RemoteFile(
            path,
            size,
            blob,
            sha256=blob if len(blob) == 64 else None,
            xet=None if xet is None else Xet(xet.file_hash, xet.refresh_route),
        )

    def _head(self, repo: str, commit: str, path: str) -> HfFileMetadata:
        from huggingface_hub import get_hf_file_metadata

        return get_hf_file_metadata(self._url(repo, commit, path), endpoint=self._endpoint, token=self.token)

    def _cached(self, repo: str, wanted: str | None, name: str | None) -> Download:
        """Without the network: what the cache holds, of the main branch if it can be had."""
        refused: ModelError | None = None
        for snapshot in self._snapshots(repo):
            paths = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]
            try:
                model = choose(repo, paths, wanted)
            except ModelError as error:
                refused = refused or error
                continue
            files = tuple(_from_cache(snapshot, path) for path in model.files)
            return Download(name or _name_for(repo, model), repo, snapshot.name, files, 0)
        what = repo if wanted is None else f"{repo}:{wanted}"
        raise WsdError(f"{what} is not in the cache, and HF_HUB_OFFLINE is set: unset it to fetch") from refused

    def _snapshots(self, repo: str) -> list[Path]:
        storage = self._storage(repo)
        ref, folder = storage / "refs" / "main", storage / "snapshots"
        main = ref.read_text().strip() if ref.is_file() else ""
        return sorted(folder.iterdir(), key=lambda one: one.name != main) if folder.is_dir() else []

    # -- fetch -----------------------------------------------------------------------------------------------

    def require_space(self, downloads: Iterable[Download]) -> None:
        """See whether the disk of the cache has room for what is missing.

        Raises:
            WsdError: it has not; the message says how much is missing.
        """
        folder = self._cache
        while not folder.exists():
            folder = folder.parent
        needed, free = sum(download.missing for download in downloads), shutil.disk_usage(folder).free
        if needed > free:
            raise WsdError(
                f"{gb(needed)} must be fetched into {self._cache}, and {gb(free)} are free: "
                f"{gb(needed - free)} are missing; free as much, or set HF_HOME to a folder on another disk"
            )

    def fetch(self, download: Download, progress: Progress | None = None) -> Known:
        """Bring a model into the cache, check it, and remember it by its name. What is there is not fetched again.

        `progress` may stop the transfer by raising; what came until then is kept for the next time.

        Raises:
            ModelError: the repository or a file of it may not be read, or is there no more.
            WsdError: the disk is full, the Hub cannot be reached or fails, or the bytes are wrong (and removed).
        """
        before, paths = 0, []
        with self._explained(download.repo):
            self.require_space([download])
            for file in download.files:

                def tell(done: int, phase: Phase, before: int = before) -> None:
                    if progress is not None:
                        progress(before + done, download.size, phase)

                paths.append(self._obtained(download, file, tell))
                before += file.size
            self._note_commit(download)
        entry = Known(download.name, tuple(paths), "pulled", download.repo, download.revision)
        remember(entry)
        return entry

    def _obtained(self, download: Download, file: RemoteFile, tell: _Tell) -> Path:
        from huggingface_hub.file_download import are_symlinks_supported

        pointer = self._pointer(download.repo, download.revision, file.path)
        if pointer.is_file():
            _check(pointer, file, tell)
            return pointer
        storage = self._storage(download.repo)
        blob, part = storage / "blobs" / file.blob, self._part(download.repo, file)
        lock = self._cache / ".locks" / storage.name / f"{file.blob}.lock"
        for folder in (blob.parent, lock.parent, pointer.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with _locked(lock, lambda: tell(_size(part), "download")):
            if not blob.is_file():
                self._transfer(download, file, part, tell)
                part.replace(blob)
            _check(blob, file, tell)
            pointer.unlink(missing_ok=True)
            if are_symlinks_supported(self._cache):
                pointer.symlink_to(os.path.relpath(blob, pointer.parent))
            else:
                blob.replace(pointer)
        return pointer

    def _note_commit(self, download: Download) -> None:
        """Programs that look for the main branch in the cache look here."""
        ref = self._storage(download.repo) / "refs" / "main"
        if not ref.is_file() or ref.read_text() != download.revision:
            write_text(ref, download.revision)

    # -- bytes -----------------------------------------------------------------------------------------------

    def _transfer(self, download: Download, file: RemoteFile, part: Path, tell: _Tell) -> None:
        """Complete `part` from the bytes that it has."""
        from huggingface_hub.errors import HfHubHTTPError

        http = _http_package()
        part.touch()
        furthest = have = _size(part)
        failures, by_xet = 0, file.xet is not None and _xet_is_there()
        while have < file.size:
            failure: Exception | None = None
            tell(have, "download")
            try:
                source = self._xet(file, have) if by_xet else self._http(download, file, have)
                with source as (start, chunks):
                    _append(part, start, chunks, file, tell)
            except _XetError:
                by_xet = False
                have = _size(part)
                continue
            except (http.TransportError, HfHubHTTPError) as error:
                failure = error
                if isinstance(error, HfHubHTTPError) and error.response.status_code == 416:
                    os.truncate(part, 0)
            have = _size(part)
            if have > furthest:
                furthest, failures = have, 0
            if have < file.size:
                wait = self._wait(failure, failures)
                if wait is None:
                    raise failure or WsdError(f"{self._endpoint} sends only {have} of {file.size} bytes of {file.path}")
                failures += 1
                _pause(wait, partial(tell, have, "download"))
        if have > file.size:
            part.unlink()
            raise WsdError(
                f"{file.path}: more bytes came than there should be, and were removed; run the command again"
            )

    @contextmanager
    def _http(self, download: Download, file: RemoteFile, have: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        from huggingface_hub import get_session
        from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT
        from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

        headers = self._headers() | {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        # The Hub's own address each time: what it redirects to is signed, and valid for a while only. The session
        # takes the token out of a request to another host.
        url = self._url(download.repo, download.revision, file.path)
        with get_session().stream("GET", url, headers=headers, timeout=HF_HUB_DOWNLOAD_TIMEOUT) as response:
            hf_raise_for_status(response)
            start, size = _place(response)
            page = response.headers.get("Content-Type", "").startswith("text/html")
            if page or size not in (None, file.size) or start not in (0, have):
                what = "a web page" if page else f"{size} bytes from {start} on"
                raise WsdError(
                    f"{self._endpoint} sends {what} for {file.path}, which has {file.size} bytes; none of it is kept: "
                    "check the network, or try again later"
                )
            yield start, response.iter_bytes()

    @contextmanager
    def _xet(self, file: RemoteFile, have: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        assert file.xet is not None
        chunks = _xet_chunks(file.xet, file.size, have, self._headers())
        with closing(chunks):
            yield have, chunks

    def _headers(self) -> dict[str, str]:
        from huggingface_hub import get_token
        from huggingface_hub.constants import HF_HUB_DISABLE_IMPLICIT_TOKEN

        token = self.token or (None if HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token())
        return {"User-Agent": "wsd-local"} | ({"Authorization": f"Bearer {token}"} if token else {})

    # -- attempts --------------------------------------------------------------------------------------------

    def _asked(self, call: Callable[[], T]) -> T:
        """The answer to a question of some bytes."""
        from huggingface_hub.errors import HfHubHTTPError

        http, failures = _http_package(), 0
        while True:
            try:
                return call()
            except (http.TransportError, HfHubHTTPError) as error:
                wait = self._wait(error, failures)
                # Where nobody answers, nobody will in some seconds.
                unheard = failures > 0 and isinstance(error, http.ConnectError)
                if wait is None or unheard or isinstance(error, http.UnsupportedProtocol):
                    raise
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise self._stranger() from error
            failures += 1
            time.sleep(wait)

    def _wait(self, error: Exception | None, failures: int) -> float | None:
        """Seconds until the next attempt, None if there is to be none."""
        from huggingface_hub.errors import HfHubHTTPError

        if failures >= len(self.waits):
            return None
        if isinstance(error, HfHubHTTPError):
            asked = _asked_for(error)
            if error.response.status_code not in _PASSING or (asked is not None and asked > LONGEST_WAIT):
                return None
            return self.waits[failures] if asked is None else asked
        return self.waits[failures]

    # -- errors ----------------------------------------------------------------------------------------------

    @contextmanager
    def _explained(self, repo: str) -> Iterator[None]:
        """What goes wrong with the Hub or the disk, as errors that a person can act on."""
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        http = _http_package()
        try:
            yield
        except OfflineModeIsEnabled as error:
            raise WsdError(f"{repo} must be fetched, and HF_HUB_OFFLINE is set: unset it") from error
        except HfHubHTTPError as error:
            raise self._refused(error, repo) from error
        except (http.HTTPError, http.InvalidURL) as error:
            why = _line(error) or type(error).__name__
            raise WsdError(
                f"{self._endpoint} cannot be reached ({why}): check the network, and HF_ENDPOINT if it is set; "
                "the same command goes on from what is there"
            ) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise WsdError(
                    f"the disk of {self._cache} is full: free some space, or set HF_HOME to a folder on another disk; "
                    "the same command goes on from what is there"
                ) from error
            raise WsdError(f"{self._cache}: cannot be used: {_line(error)}") from error

    def _refused(self, error: HfHubHTTPError, repo: str) -> WsdError:
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        status, page = error.response.status_code, f"{self._endpoint}/{repo}"
        said, log_in = _line(error.response.headers.get("X-Error-Message", "")), "hf auth login, or HF_TOKEN"
        if isinstance(error, GatedRepoError):
            if "authorization" in error.response.request.headers:
                return ModelError(
                    f"{repo} is gated, and your account may not read it yet: open {page}, accept the licence, wait if "
                    f"the owner must agree, and run the command again; for another account: {log_in}"
                )
            return ModelError(
                f"{repo} is gated: open {page}, log in there and accept the licence; then log in here ({log_in}) and "
                "run the command again"
            )
        if status == 401 and "credentials" in said.lower():
            return ModelError(f"{self._endpoint} does not accept the token: log in again ({log_in}), or unset HF_TOKEN")
        if isinstance(error, (EntryNotFoundError, RevisionNotFoundError)):
            return ModelError(f"{repo}: a file or revision of it is not there any more; look at {page}")
        if isinstance(error, RepositoryNotFoundError) or status in (401, 404):
            repos = {entry.repo for entry in catalog_models().values() if entry.repo not in (None, repo)}
            close = difflib.get_close_matches(repo, [one for one in repos if one is not None], 1)
            mean = f"; did you mean {close[0]!r}?" if close else ""
            return ModelError(
                f"{repo} does not exist, or is private or gated: look at {page}, and log in if you may read it "
                f"({log_in}){mean}"
            )
        why = f" ({said})" if said else ""
        if status == 403:
            return ModelError(f"{repo} may not be read{why}: look at {page}; to log in: {log_in}")
        asked = _asked_for(error)
        later = "later" if asked is None else f"in {asked:.0f} s"
        return WsdError(
            f"{self._endpoint} answers {status} for {repo}{why}: try again {later}; "
            "the same command goes on from what is there"
        )

    def _stranger(self) -> WsdError:
        return WsdError(f"{self._endpoint} does not answer as the Hub does: check HF_ENDPOINT, and the network's login")

    def _hexadecimal(self, value: str | None) -> str:
        """A hash that the server states; it becomes part of a path."""
        if value is None or not _HEX.fullmatch(value):
            raise self._stranger()
        return value

    # -- places ----------------------------------------------------------------------------------------------

    @property
    def _endpoint(self) -> str:
        from huggingface_hub.constants import ENDPOINT

        return (self.endpoint or ENDPOINT).rstrip("/")

    @property
    def _cache(self) -> Path:
        from huggingface_hub.constants import HF_HUB_CACHE

        return (self.cache or Path(HF_HUB_CACHE)).expanduser().resolve()

    def _storage(self, repo: str) -> Path:
        from huggingface_hub.file_download import repo_folder_name

        return self._cache / repo_folder_name(repo_id=repo, repo_type="model")

    def _pointer(self, repo: str, commit: str, path: str) -> Path:
        return self._storage(repo) / "snapshots" / commit / path

    def _part(self, repo: str, file: RemoteFile) -> Path:
        """Bytes that came so far. `hf cache prune` knows the ending."""
        return self._storage(repo) / "blobs" / f"{file.blob}.wsd-local.incomplete"

    def _missing(self, repo: str, commit: str, file: RemoteFile) -> int:
        if self._pointer(repo, commit, file.path).is_file() or (self._storage(repo) / "blobs" / file.blob).is_file():
            return 0
        return max(0, file.size - _size(self._part(repo, file)))

    def _url(self, repo: str, commit: str, path: str) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(repo, path, revision=commit, endpoint=self._endpoint)


# -- bytes ---------------------------------------------------------------------------------------------------


class _XetError(Exception):
    """The chunk storage cannot be used; plain HTTP can go on from the bytes that came."""


@contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Alone with a file, after another program that fetches it; `waiting` is called until then, and may raise."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    while not lock.is_locked:
        try:
            lock.acquire(timeout=0.2)
        except Timeout:
            waiting()
    try:
        yield
    finally:
        lock.release()


def _append(part: Path, start: int, chunks: Iterable[bytes], file: RemoteFile, tell: _Tell) -> None:
    """Write what comes, from `start` on; unbuffered, so that nothing is lost when the process is killed."""
    with part.open("r+b", buffering=0) as out:
        out.truncate(start)
        done = out.seek(start)
        for chunk in chunks:
            if done + len(chunk) > file.size:
                out.truncate(start)
                raise WsdError(
                    f"{file.path} should have {file.size} bytes, and the server sends more; none of it is kept: "
                    "try again later"
                )
            view = memoryview(chunk)
            while view:
                view = view[out.write(view) :]
            done += len(chunk)
            tell(done, "download")


def _check(path: Path, file: RemoteFile, tell: _Tell) -> None:
    """See that a file is what the Hub states, and remove it if not."""
    size, problem = path.stat().st_size, None
    if size != file.size:
        problem = f"it has {size} bytes, and should have {file.size}"
    elif file.sha256 is not None:
        digest = file_sha256(path, progress=lambda done, _total: tell(done, "verify"))
        if digest != file.sha256:
            problem = f"its SHA-256 is {digest}, and should be {file.sha256}"
    if problem is not None:
        for wrong in (path.resolve(), path):
            wrong.unlink(missing_ok=True)
        raise WsdError(f"{file.path}: the bytes are wrong ({problem}); they were removed, run the command again")


def _place(response: httpx2.Response) -> tuple[int, int | None]:
    """Where the bytes of an answer begin in the file, and the size of the file as far as it is told."""
    told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if response.status_code == 206 and told is not None:
        return int(told[1]), None if told[2] == "*" else int(told[2])
    length = response.headers.get("Content-Length", "")
    coded = response.headers.get("Content-Encoding", "identity") != "identity"
    return 0, int(length) if length.isdecimal() and not coded else None


def _http_package() -> Any:
    """What `huggingface_hub` speaks HTTP with: its 1.x and 2.x differ."""
    from huggingface_hub.errors import HfHubHTTPError

    return importlib.import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])


def _xet_is_there() -> bool:
    from huggingface_hub.constants import HF_HUB_DISABLE_XET

    return not HF_HUB_DISABLE_XET and importlib.util.find_spec("hf_xet") is not None


def _xet_chunks(xet: Xet, size: int, have: int, headers: dict[str, str]) -> Generator[bytes, None, None]:
    """The rest of a file in its order; the token goes to the Hub alone, which lends one for the storage."""
    try:
        module = importlib.import_module("hf_xet")
        group = module.XetSession().new_download_stream_group(
            token_refresh_url=xet.refresh, token_refresh_headers=headers
        )
        stream = group.download_stream(module.XetFileInfo(xet.hash, size), start=have or None)
    except Exception as error:
        raise _XetError from error
    try:
        yield from stream
    except Exception as error:
        raise _XetError from error
    finally:
        stream.cancel()


def _pause(seconds: float, tell: Callable[[], None]) -> None:
    until = time.monotonic() + seconds
    while (rest := until - time.monotonic()) > 0:
        tell()
        time.sleep(min(rest, 0.2))


def _asked_for(error: HfHubHTTPError) -> float | None:
    """Seconds that the server asks to wait."""
    headers = error.response.headers
    after = re.fullmatch(r"\s*(\d+)\s*", headers.get("Retry-After", ""), re.ASCII)
    limit = re.search(r"r=0;\s*t=(\d+)", headers.get("RateLimit", ""), re.ASCII)
    found = after or (limit if error.response.status_code == 429 else None)
    return None if found is None else float(found[1])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _line(said: object) -> str:
    """Text of a server on one line."""
    return "".join(sign for sign in " ".join(str(said).split()) if sign.isprintable())[:200]


# -- names ---------------------------------------------------------------------------------------------------


def _checked_repo(repo: str) -> str:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HFValidationError

    try:
        hf_hub_url(repo, "file")
        if "/" in repo:
            return repo
    except HFValidationError:
        pass
    raise UsageError(
        f"{repo!r} names no repository: give a pair, a model, OWNER/NAME, OWNER/NAME:Q4_K_M or OWNER/NAME:FILE.gguf"
    )


def _check_name(name: str, repo: str | None) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name) or name.endswith(".gguf"):
        raise UsageError(f"--as {name!r}: a name is letters, digits and . _ + -, and does not end in .gguf")
    if name in catalog_models() or name in catalog_pairs():
        raise UsageError(f"--as {name!r}: the catalog has something of that name; take another")
    taken = known().get(name)
    if taken is not None and (taken.origin != "pulled" or taken.repo != repo):
        raise UsageError(f"--as {name!r}: {taken.path} has that name; take another")


def _name_for(repo: str, model: Gguf) -> str:
    """The catalog's name of a model, else one made of its file's that nothing else has."""
    models, here = catalog_models(), known()
    for entry in models.values():
        if entry.repo == repo and entry.file in model.files:
            return entry.name
    files = [path.rpartition("/")[2] for path in model.files]
    plain = re.sub(r"[^a-z0-9._+-]+", "-", model.stem.rpartition("/")[2].lower()).strip("-.") or "model"
    owner = re.sub(r"[^a-z0-9._+-]+", "-", repo.partition("/")[0].lower())
    for name in chain((plain, f"{plain}-{owner}"), (f"{plain}-{owner}-{i}" for i in count(2))):
        other = here.get(name)
        same = other is not None and other.repo == repo and [path.name for path in other.paths] == files
        if same or (other is None and name not in models and name not in catalog_pairs()):
            return name
    raise AssertionError("unreachable")


def _from_cache(snapshot: Path, path: str) -> RemoteFile:
    """A file of the cache, whose bytes are named by their SHA-256."""
    blob = (snapshot / path).resolve()
    stated = blob.name if len(blob.name) == 64 and _HEX.fullmatch(blob.name) else None
    return RemoteFile(path, blob.stat().st_size, blob.name, stated)
