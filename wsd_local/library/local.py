"""Models that are on this machine already: in our registry, and where other programs keep theirs.

Contract: nothing is copied or moved. `import_model` gives a file a name; `remove` forgets one, and deletes only files
that this program is recorded to have fetched (see `fetched`), or that it made in its own folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wsd_local.errors import UsageError, nearest
from wsd_local.files import HashProgress, file_sha256
from wsd_local.library.description import gguf_files
from wsd_local.library.fetched import deletable, forget_deleted, mark
from wsd_local.library.gguf import read_model
from wsd_local.library.registry import Known, forget, known, remember
from wsd_local.library.resolve import catalog_model, checked_name
from wsd_local.paths import expanded, made_models_dir
from wsd_local.system.inputs import read_json

_DIGEST = re.compile(r"sha256:[0-9a-f]{1,64}")
_OLLAMA_MODEL = "application/vnd.ollama.image.model"


@dataclass(frozen=True, slots=True)
class Found:
    """A model file that another program keeps."""

    program: str
    name: str
    path: Path


def found_elsewhere() -> list[Found]:
    """Models of Ollama, LM Studio and llama.cpp, and GGUF files in the Hub's cache."""
    return [*_ollama(), *_folders()]


def import_model(path: Path, name: str, progress: HashProgress | None = None) -> Known:
    """Give a model file a name, without copying it. Its whole-file hash is made now.

    Raises:
        UsageError: the name is taken, or cannot be a name.
        ModelError: the file is missing or damaged.
    """
    checked_name(name)
    path = Path(os.path.abspath(expanded(path)))  # noqa: PTH100 - resolve() would turn a Hub link into its blob
    paths = tuple(header.path for header in read_model(path))
    from wsd_local.library.vetting import vet

    vet(path)
    for part in paths:
        file_sha256(part, progress=progress)
    entry = Known(name, paths, "imported")
    remember(entry)
    return entry


@dataclass(frozen=True, slots=True)
class Removal:
    """What removing a name does: which files go, which stay and why, and how many bytes that frees."""

    name: str
    deleted: tuple[Path, ...]
    kept: tuple[Path, ...]
    freed: int
    reasons: tuple[str, ...] = ()


def removal(name: str) -> Removal:
    """What `remove` would do.

    Raises:
        UsageError: there is no such name, or the model is a part of the program.
    """
    entries = known()
    if name not in entries:
        entry = catalog_model(name)
        if entry is not None and entry.path is not None:
            raise UsageError(f"{name} is a part of the program and stays")
        raise UsageError(f"there is no model {name!r} to remove{nearest(name, list(entries))}")
    others = [path for other in entries.values() if other.name != name for path in other.paths]
    deleted: list[Path] = []
    kept: dict[Path, str] = {}
    for path in entries[name].paths:
        gone, why = _deletable(entries[name], path)
        needed = [file for file in gone if file in others or (not file.is_symlink() and _is_one_of(file, others))]
        if needed:
            gone, why = [file for file in gone if file.is_symlink() and file not in needed], "another model needs it"
        deleted += gone
        if not gone:
            kept[path] = why
    freed = sum(file.stat().st_size for file in deleted if not file.is_symlink())
    return Removal(name, tuple(deleted), tuple(kept), freed, tuple(kept.values()))


def remove(name: str) -> Removal:
    """Forget a name, and delete the files that this program fetched or made for it."""
    planned = removal(name)
    for path in planned.deleted:
        path.unlink(missing_ok=True)
    forget(name)
    if planned.deleted:
        forget_deleted()
    return planned


def _deletable(entry: Known, path: Path) -> tuple[list[Path], str]:
    """The files that go with a model's file, or none and why."""
    if entry.origin == "pulled":
        return deletable(path, entry.repo, entry.revision)
    if entry.origin == "imported":
        return [], "it was imported"
    folder = made_models_dir().resolve()
    if not path.is_file() or path.is_symlink() or not path.resolve().is_relative_to(folder):
        return [], f"it is no file in {folder}"
    if entry.written is None:
        return [], "it is not recorded that this program made it"
    if entry.written != mark(path.stat()):
        return [], "it was changed or replaced"
    return [path], ""


def _is_one_of(path: Path, others: list[Path]) -> bool:
    return any(os.path.realpath(path) == os.path.realpath(other) for other in others)


# -- other programs -----------------------------------------------------------------------------------------------


def places_elsewhere() -> list[tuple[str, Path]]:
    """Where `found_elsewhere` looks: programs and their folders, whether they exist or not."""
    return [*(("Ollama", folder) for folder in _ollama_folders()), *_other_folders()]


def _ollama_folders() -> list[Path]:
    root = Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models")
    system = Path("/usr/share/ollama/.ollama/models")
    return list(dict.fromkeys((root, system)))


def _ollama() -> Iterator[Found]:
    for folder in _ollama_folders():
        for manifest in _files(folder / "manifests"):
            try:
                layers = read_json(manifest)["layers"]
                digests = [layer["digest"] for layer in layers if layer["mediaType"] == _OLLAMA_MODEL]
            except (UsageError, KeyError, TypeError):
                continue
            for digest in digests:
                blob = folder / "blobs" / str(digest).replace(":", "-")
                if isinstance(digest, str) and _DIGEST.fullmatch(digest) and blob.is_file():
                    yield Found("Ollama", f"{manifest.parent.name}:{manifest.name}", blob)


def _other_folders() -> list[tuple[str, Path]]:
    home = Path.home()
    cache = Path(os.environ.get("LLAMA_CACHE") or home / ".cache" / "llama.cpp")
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or home / ".cache/huggingface") / "hub")
    return [
        ("LM Studio", home / ".lmstudio" / "models"),
        ("LM Studio", home / ".cache" / "lm-studio" / "models"),
        ("llama.cpp", cache),
        ("llama.cpp", home / "Library" / "Caches" / "llama.cpp"),
        ("Hub cache", hub),
    ]


def _folders() -> Iterator[Found]:
    for program, folder in _other_folders():
        try:
            paths = gguf_files(folder)
        except OSError:
            continue
        for path in paths:
            yield Found(program, path.stem, path)


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.rglob("*") if path.is_file())
    except OSError:
        return []
