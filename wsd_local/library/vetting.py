"""Vetting: a model file, or an adapter, is examined before it is loaded for the first time.

Contract: `vet` returns if the file can be loaded, else it raises `ModelError` in one line with the cause. The header is
checked here, then a child process loads the file, because llama.cpp ends the process for some damaged files. What was
found good is remembered by path, size, times, inode and a hash of the header; where that memory cannot be used, the
look is repeated. The files of the package need none. `amx_works` tries llama.cpp itself in the same way.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wsd_local.errors import ModelError
from wsd_local.files import identity, read_memory, write_memory
from wsd_local.library.adapters import check_adapter, check_read
from wsd_local.library.gguf import MAPPABLE, Header, damage, read_header, read_model
from wsd_local.paths import cache_dir, demo_dir, package_models_dir
from wsd_local.system import child
from wsd_local.system.child import Waiting
from wsd_local.units import MIB

_SHORTEST, _SLOWEST = 60.0, 20 * MIB
"""A trial may take this many seconds, and one more for each `_SLOWEST` bytes of the file."""
_MOST_OUTPUT = MIB
_LARGEST = {"block_count": 1 << 14, "embedding_length": 1 << 24, "context_length": 1 << 30, "expert_count": 1 << 14}
_TENSORS_OF_NONE = "it holds no weights, only a vocabulary; name the model itself"


def vet(path: Path, waiting: Waiting | None = None) -> None:
    """Make sure that the model in `path` can be loaded; immediate if that is known already.

    `waiting` is called now and then while the child process works; returning False stops it.

    Raises:
        ModelError: the file, or a part of a split model, is missing, damaged, or refused by llama.cpp.
        CancelledError: `waiting` returned False.
    """
    if path.resolve().is_relative_to(package_models_dir().resolve()):
        return
    key = str(path.resolve())
    if path.is_file() and _still_true(read_memory(_file()).get(key)):
        return
    headers = read_model(path)
    verdict = _verdict(headers)
    check(headers)
    _try(headers, waiting)
    _remember(key, verdict)


def vet_vocabulary(path: Path, waiting: Waiting | None = None) -> None:
    """Make sure that the vocabulary in `path`, which may hold no weights, can be loaded, as `vet` does for models.

    Raises:
        ModelError, CancelledError: as `vet`.
    """
    if path.resolve().is_relative_to(package_models_dir().resolve()):
        return
    key = f"the vocabulary of {path.resolve()}"
    if path.is_file() and _still_true(read_memory(_file()).get(key)):
        return
    headers = read_model(path)
    verdict = _verdict(headers)
    _try(headers, waiting, vocabulary=True)
    _remember(key, verdict)


def vet_adapter(path: Path, model: Path, waiting: Waiting | None = None) -> None:
    """Make sure that the LoRA adapter in `path` can be loaded with the model, as `vet` does for models.

    Raises:
        ModelError: a file is missing or damaged, the adapter is one of another model, or llama.cpp refuses it or leaves
            a part of it out.
        CancelledError: `waiting` returned False.
    """
    key = f"{path.resolve()} on {model.resolve()}"
    if path.is_file() and model.is_file() and _still_true(read_memory(_file()).get(key)):
        return
    adapter, headers = read_header(path), read_model(model)
    verdict = _verdict((*headers, adapter))
    check_adapter(adapter, headers)
    _try(headers, waiting, adapter)
    _remember(key, verdict)


def check(headers: tuple[Header, ...]) -> None:
    """Raise `ModelError` for headers that no text model has and on which llama.cpp would fail."""
    first = headers[0]
    if first.text("general.architecture") is None:
        raise damage(first.path, "it names no architecture")
    if first.text("general.type") == "adapter":
        raise ModelError(f"{first.path}: is a LoRA adapter; name it with --draft-lora or --base-lora")
    if not any(header.tensors for header in headers):
        raise ModelError(f"{first.path}: {_TENSORS_OF_NONE}")
    for name, largest in _LARGEST.items():
        value = first.integer(f"{first.architecture}.{name}")
        if value is not None and not 0 <= value <= largest:
            raise damage(first.path, f"{first.architecture}.{name} is {value}")


def amx_works(waiting: Waiting | None = None) -> bool:
    """Whether llama.cpp's code for AMX runs where it would be used; where it does not, it ends the process.

    GCC 12.2, and others before 14, omit most of that code's instructions (GCC PR 114098). Each build is
    tried once.
    """
    from wsd_local.llama.build import library_folder
    from wsd_local.llama.devices import cpu_features

    if "AMX_INT8" not in cpu_features():
        return True
    library = library_folder()
    build = [str(library), library.stat().st_mtime_ns]
    known = read_memory(_file()).get("AMX")
    if isinstance(known, dict) and known.get("build") == build:
        return known.get("works") is True
    path = demo_dir() / "draft-q8_0.gguf"
    works = _trial([str(path), str(path.stat().st_size), "none", "repack"], _SHORTEST, waiting)[0] == 0
    _remember("AMX", {"build": build, "works": works})
    return works


# -- the child process -----------------------------------------------------------------------------------------


def _try(
    headers: Sequence[Header], waiting: Waiting | None, adapter: Header | None = None, *, vocabulary: bool = False
) -> None:
    model, size = headers[0].path, sum(header.file_size for header in headers)
    path = model if adapter is None else adapter.path
    mode = "mmap" if all(header.alignment % MAPPABLE == 0 for header in headers) else "none"
    patience = _SHORTEST + size / _SLOWEST
    arguments = [str(model.absolute()), str(size), mode]  # the child works in another folder
    if vocabulary:
        arguments.append("vocabulary")
    if adapter is not None:
        arguments[1:] = [str(size + adapter.file_size), mode, str(path.absolute())]
    code, output, log = _trial(arguments, patience, waiting)
    if code == 0:
        if adapter is not None:
            check_read(adapter, json.loads(output), headers)
        return
    if output:
        raise ModelError(output.replace(str(path.absolute()), str(path)).replace(str(model.absolute()), str(model)))
    if code == -9:
        raise ModelError(f"{path}: its trial was killed, probably for want of memory; close other programs")
    if code is None:
        raise ModelError(f"{path}: llama.cpp did not finish loading it within {patience:.0f} s; {_ADVICE}")
    raise ModelError(f"{path}: llama.cpp gave up on it: {crash_cause(log) or f'exit code {code}'}; {_ADVICE}")


_ADVICE = "the file is damaged, or this version of llama.cpp cannot load it"


def _trial(arguments: list[str], patience: float, waiting: Waiting | None) -> tuple[int | None, str, str]:
    """Its exit code, None if it did not end within `patience` seconds; its output, and its log."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        trial = child.start(["wsd_local.llama.trial", *arguments], stdout=out, stderr=err)
        try:
            code = child.wait(trial, patience, waiting, "stopped while a model was looked at")
        finally:
            child.end(trial)
        output, log = (child.text_of(file, _MOST_OUTPUT).strip() for file in (out, err))
    return code, output, log


def crash_cause(log: str) -> str:
    """The most telling line of a process that ended itself: a failed assertion, an exception, else its last error."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for mark in ("GGML_ASSERT(", "what():", "MemoryError", "bad_alloc", "rror", ""):
        for line in reversed(lines):
            if mark in line:
                return (
                    line[line.index("GGML_ASSERT(") :]
                    if mark == "GGML_ASSERT("
                    else line.removeprefix("what():").strip()
                )
    return ""


# -- what is known already ---------------------------------------------------------------------------------------


def _verdict(headers: tuple[Header, ...]) -> dict[str, Any]:
    files = [[str(h.path.resolve()), identity(h.path.stat()), h.size, h.sha256] for h in headers]
    return {"llama_cpp": version("llama-cpp-python"), "files": files}


def _still_true(verdict: Any) -> bool:
    try:
        return verdict["llama_cpp"] == version("llama-cpp-python") and all(
            _unchanged(*file) for file in verdict["files"]
        )
    except (OSError, TypeError, ValueError, KeyError):
        return False


def _unchanged(name: str, before: list[int], header_size: int, sha256: str) -> bool:
    path = Path(name)
    if list(identity(path.stat())) != before:
        return False
    with path.open("rb") as file:
        return hashlib.sha256(file.read(header_size)).hexdigest() == sha256


def _file() -> Path:
    return cache_dir() / "checked.json"


def _remember(key: str, verdict: dict[str, Any]) -> None:
    write_memory(_file(), read_memory(_file()) | {key: verdict})
