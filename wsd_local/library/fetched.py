"""The files that this program wrote, so that it deletes no others.

Contract: every transfer into the Hub's cache is recorded when its file is complete: repository, commit, path, name of
the bytes, size, SHA-256, and what identifies the written file (`mark`). A file counts as ours only if it is
recorded, lies where a file of that repository and commit belongs with no link leading out, and has not been changed or
replaced since. The record is a file of the user's: whoever can change it could also delete files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from wsd_local.library.registry import change_transfers, transfers
from wsd_local.library.repo_files import is_digest, is_safe

Mark = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fetched:
    """One file of a repository at one commit, in the Hub's cache in `cache`.

    `written` is the mark of its bytes, None if another program wrote them; `linked` if the name in the snapshot
    is a link of ours.
    """

    cache: Path
    repo: str
    revision: str
    file: str
    blob: str
    size: int
    sha256: str
    written: Mark | None
    linked: bool

    @property
    def storage(self) -> Path:
        """The repository's folder in the cache."""
        return self.cache / f"models--{self.repo.replace('/', '--')}"

    @property
    def pointer(self) -> Path:
        """Where programs find the file."""
        return self.storage / "snapshots" / self.revision / self.file

    @property
    def bytes(self) -> Path:
        """Where its bytes are, if the pointer is a link."""
        return self.storage / "blobs" / self.blob

    def is_sound(self) -> bool:
        """Whether its parts cannot lead out of the repository's folder."""
        names = is_digest(self.blob) and is_digest(self.revision) and is_safe(self.repo)
        return names and is_safe(self.file) and self.cache.is_absolute()


def mark(status: os.stat_result) -> Mark:
    """What identifies a written file, also after a restart: inode, size, time of modification."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def record(entry: Fetched) -> None:
    """Record a file that a transfer wrote."""
    change_transfers(lambda rows: [*(row for row in rows if not _is_of(row, entry)), _row(entry)])


def recorded() -> list[Fetched]:
    """All records that are valid."""
    return [entry for row in transfers() if (entry := _entry(row)) is not None and entry.is_sound()]


def forget_deleted() -> None:
    """Drop the records of files that are gone; for bytes that are still there it stays recorded that they are ours."""
    gone = [entry for entry in recorded() if not os.path.lexists(entry.pointer)]
    left = [replace(entry, linked=False) for entry in gone if entry.written is not None and entry.bytes.exists()]
    change_transfers(
        lambda rows: [row for row in rows if not any(_is_of(row, entry) for entry in gone)] + [*map(_row, left)]
    )


def wrote_bytes(path: Path) -> bool:
    """Whether the bytes at a path of the cache are in the very file that a transfer of ours made, damaged or not."""
    try:
        status = path.stat()
        found = [entry for entry in recorded() if path.resolve() in (entry.bytes.resolve(), entry.pointer.resolve())]
    except OSError:
        return False
    return any(entry.written is not None and entry.written[0] == status.st_ino and _inside(entry) for entry in found)


def deletable(path: Path, repo: str | None, revision: str | None) -> tuple[list[Path], str]:
    """The files that may go when `path` is removed, or none and why; the bytes stay where another link needs them."""
    entries = recorded()
    entry = next((one for one in entries if (one.pointer, one.repo, one.revision) == (path, repo, revision)), None)
    if not os.path.lexists(path):
        return [], "it is not there"
    if entry is None:
        return [], "no transfer of this program is recorded to have written it"
    if not _inside(entry):
        return [], "a link leads out of the repository's folder"
    if not path.is_symlink():
        return ([path], "") if _untouched(path, [entry]) else ([], "it was changed or replaced")
    if path.resolve() != entry.bytes.resolve() or not entry.linked:
        return [], "the link in its place was made by another program"
    shared = [one for one in entries if one.bytes == entry.bytes]
    if entry.bytes.exists() and _untouched(entry.bytes, shared) and not list(_others(entry)):
        return [path, entry.bytes], ""
    return [path], ""


def _inside(entry: Fetched) -> bool:
    """Whether the folders of an entry are what they seem, and no links."""
    storage, cache = entry.storage, entry.cache.resolve()
    folders = (storage / "blobs", entry.pointer.parent)
    return all(
        folder.resolve() == cache / folder.relative_to(entry.cache) for folder in folders if os.path.lexists(folder)
    )


def _untouched(path: Path, entries: list[Fetched]) -> bool:
    status = path.lstat()
    return status.st_nlink == 1 and any(entry.written == mark(status) for entry in entries)


def _others(entry: Fetched) -> Iterator[Path]:
    """Other names of the same bytes."""
    blob = entry.bytes.resolve()
    for path in (entry.storage / "snapshots").rglob("*"):
        if path != entry.pointer and path.is_symlink() and path.resolve() == blob:
            yield path


def _row(entry: Fetched) -> dict[str, Any]:
    return asdict(entry) | {"cache": str(entry.cache)}


def _entry(row: Any) -> Fetched | None:
    try:
        written = None if row["written"] is None else tuple(map(int, row["written"]))
        entry = Fetched(**{**row, "cache": Path(row["cache"]), "written": written})
        texts = (entry.repo, entry.revision, entry.file, entry.blob, entry.sha256)
        return entry if all(isinstance(text, str) for text in texts) else None
    except (TypeError, ValueError, KeyError):
        return None


def _is_of(row: Any, entry: Fetched) -> bool:
    other = _entry(row)
    keys = ("cache", "repo", "revision", "file")
    return other is not None and all(getattr(other, key) == getattr(entry, key) for key in keys)
