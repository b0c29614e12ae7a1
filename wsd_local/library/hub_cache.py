"""The Hub's own cache on this machine: where a repository's files are, and which of them are ours.

Contract: the layout is that of `huggingface_hub`, so that other programs find what is fetched here. A file is deleted
only if this program wrote it (see `fetched`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from wsd_local.errors import WsdError
from wsd_local.files import known_sha256, write_text
from wsd_local.library.download import RemoteFile, Report, size_of, wrong
from wsd_local.library.fetched import Fetched, mark, record, wrote_bytes
from wsd_local.library.repo_files import is_digest


@dataclass(frozen=True, slots=True)
class HubCache:
    """A cache in a folder."""

    folder: Path

    def storage(self, repo: str) -> Path:
        """The folder of a repository."""
        from huggingface_hub.file_download import repo_folder_name

        return self.folder / repo_folder_name(repo_id=repo, repo_type="model")

    def pointer(self, repo: str, commit: str, path: str) -> Path:
        """A file under its own name."""
        return self.storage(repo) / "snapshots" / commit / path

    def blob(self, repo: str, file: RemoteFile) -> Path:
        """Its bytes, under their hash."""
        return self.storage(repo) / "blobs" / file.blob

    def part(self, repo: str, file: RemoteFile) -> Path:
        """The bytes that have arrived so far. `hf cache prune` knows the ending."""
        return self.storage(repo) / "blobs" / f"{file.blob}.wsd-local.incomplete"

    def lock(self, repo: str, file: RemoteFile) -> Path:
        """The lock that a fetching program holds."""
        return self.folder / ".locks" / self.storage(repo).name / f"{file.blob}.lock"

    def missing(self, repo: str, commit: str, file: RemoteFile) -> int:
        """Bytes of a file that are still to be fetched."""
        if self.pointer(repo, commit, file.path).is_file() or self.blob(repo, file).is_file():
            return 0
        return max(0, file.size - size_of(self.part(repo, file)))

    def snapshots(self, repo: str) -> list[Path]:
        """Folders of the commits that are here, that of the main branch first."""
        storage = self.storage(repo)
        ref, folder = storage / "refs" / "main", storage / "snapshots"
        main = ref.read_text(encoding="utf-8", errors="replace").strip() if ref.is_file() else ""
        return sorted(folder.iterdir(), key=lambda one: one.name != main) if folder.is_dir() else []

    def link(self, repo: str, commit: str, file: RemoteFile, *, wrote: bool) -> None:
        """Give bytes their name in the snapshot, and record which of both are ours; `wrote`: the bytes are."""
        from huggingface_hub.file_download import are_symlinks_supported

        blob, pointer = self.blob(repo, file), self.pointer(repo, commit, file.path)
        written, sha256 = mark(blob.stat()) if wrote else None, known_sha256(blob) or file.sha256 or ""
        linked = are_symlinks_supported(self.folder)
        pointer.unlink(missing_ok=True)
        if linked:
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        else:
            blob.replace(pointer)
        record(Fetched(self.folder, repo, commit, file.path, file.blob, file.size, sha256, written, linked))

    def note_commit(self, repo: str, commit: str) -> None:
        """Record a commit as that of the main branch, for programs that look for this in the cache."""
        ref = self.storage(repo) / "refs" / "main"
        if not ref.is_file() or ref.read_bytes() != commit.encode():
            write_text(ref, commit)


def check(path: Path, file: RemoteFile, report: Report) -> None:
    """Compare a file of the cache with what the Hub states; a wrong one is deleted if this program wrote it.

    Raises:
        WsdError: the bytes are wrong.
    """
    problem = wrong(path, file, report)
    if problem is None:
        return
    if not wrote_bytes(path):
        raise WsdError(
            f"{file.path}: the bytes in the cache are wrong ({problem}); another program brought or changed them, so "
            f"they are left there: remove {path.resolve()}, and run the command again"
        )
    for ours in (path.resolve(), path):
        ours.unlink(missing_ok=True)
    raise WsdError(f"{file.path}: the bytes are wrong ({problem}); they were removed, run the command again")


def from_cache(snapshot: Path, path: str) -> RemoteFile:
    """A file of the cache, whose bytes are named by their SHA-256."""
    blob = (snapshot / path).resolve()
    stated = blob.name if len(blob.name) == 64 and is_digest(blob.name) else None
    return RemoteFile(path, blob.stat().st_size, blob.name, stated)
