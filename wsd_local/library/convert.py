"""Converting: a checkpoint becomes a GGUF file, by llama.cpp's own converter.

Contract: the converter runs in a child process, which is killed to stop it. The new file appears under its name only
when it is complete, and replaces another one only with `force`. The converter is that of the installed llama.cpp, from
the source archive of llama-cpp-python on the package index, whose SHA-256 is known here (`ARCHIVES`); it is kept in the
cache folder. `WSD_LOCAL_LLAMA_CPP` names a folder with llama.cpp's source instead. No code of a checkpoint is run, even
if it requires that: `python -m wsd_local.library.convert CONVERTER ARGUMENTS...` runs the converter without it.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tarfile
import tempfile
import urllib.parse
from collections.abc import Sequence
from importlib import import_module, metadata, util
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from wsd_local.errors import ModelError, UsageError, WsdError
from wsd_local.files import check_disk, check_free, replaced
from wsd_local.library.checkpoint import Checkpoint, WeightType, chosen_kind, weights
from wsd_local.paths import cache_dir, expanded
from wsd_local.system.child import UNOBSERVED, Observer, StepProgress, cause, nothing, output, run
from wsd_local.system.extras import install_command

EXTRA = ("torch", "transformers", "sentencepiece")
ARCHIVES = {"0.3.36": "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"}
"""SHA-256 of the source archive for each version of llama-cpp-python; no other bytes are unpacked and run."""
_LARGEST_ARCHIVE = 1 << 29
_PATIENCE = 60.0
BITS = {"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5}
SCRIPT, ADAPTER_SCRIPT = "convert_hf_to_gguf.py", "convert_lora_to_gguf.py"
"""llama.cpp's programs for checkpoints and for adapters."""
_SHARED = ("conversion", "gguf-py")
_UNPACKED = (SCRIPT, ADAPTER_SCRIPT, *_SHARED, "LICENSE")
_INSTEAD = "unpack llama.cpp's source yourself and name its folder in WSD_LOCAL_LLAMA_CPP"
_PERCENT = re.compile(r"Writing: +(\d+)%")
_COMPLAINT = re.compile(r"(?:ERROR:[\w.-]+:|[\w.]*(?:Error|Exception|Failure|Exit): )(?P<what>.+)")
_HASHED = re.compile(r'href="(?P<url>[^"#]+)#sha256=(?P<sha>[0-9a-f]{64})"')


def convert(
    checkpoint: Checkpoint,
    output: Path,
    kind: WeightType = "auto",
    *,
    force: bool = False,
    observer: Observer = UNOBSERVED,
) -> Path:
    """Make a GGUF file of a checkpoint.

    Args:
        checkpoint: its folder.
        output: the file to make.
        kind: type of the weights in it.
        force: replace a file of that name.
        observer: sees the progress of writing, and can stop the work.

    Raises:
        UsageError: there is such a file, or no such type.
        ModelError: the checkpoint is damaged, or llama.cpp does not know how to convert it.
        CancelledError: it was stopped.
        WsdError: torch or transformers are missing, the converter cannot be fetched, the disk is full.
    """
    if kind not in get_args(WeightType):
        raise UsageError(f"there is no type {kind!r}; known are {', '.join(get_args(WeightType))}")
    require_extra()
    check_free(output, force)
    numbers = weights(checkpoint.folder)
    kind = chosen_kind(kind, numbers)
    check_disk(output, int(numbers.total() * BITS[kind] / 8))
    script = converter(observer.progress) / SCRIPT
    observer.progress("reading the checkpoint", 0)
    with replaced(output) as part:
        options = ["--outtype", kind, "--model-name", checkpoint.name, str(checkpoint.folder.absolute())]
        if (complaint := run_converter(script, part, options, observer)) is not None:
            raise ModelError(f"{checkpoint.folder}: cannot be converted: {complaint}")
    return output


def run_converter(script: Path, output: Path, options: Sequence[str], observer: Observer) -> str | None:
    """Let llama.cpp's converter write a file; why it did not, if it did not.

    Raises:
        CancelledError: it was stopped.
    """

    def on_line(line: str) -> None:
        if percent := _PERCENT.search(line):
            observer.progress("converting", int(percent[1]) / 100)

    # The converter takes its output's name for a format string.
    name = output.with_name(output.name.replace("{", "{{").replace("}", "}}")).absolute()
    arguments = [str(script), "--outfile", str(name), *options]
    code, lines = run(["wsd_local.library.convert", *arguments], on_line, observer.stoppable)
    return cause(code, lines, _COMPLAINT) if code != 0 or not output.stat().st_size else None


# -- llama.cpp's converter -----------------------------------------------------------------------------------


def require_extra() -> None:
    """Raise `WsdError` unless what the converter imports is installed."""
    missing = [name for name in EXTRA if util.find_spec(name) is None]
    if missing:
        raise WsdError(f"converting needs {', '.join(missing)}; install with: {install_command('convert')}")


def converter(progress: StepProgress = nothing, script: str = SCRIPT) -> Path:
    """The folder with llama.cpp's converters, fetched once for each version of llama-cpp-python.

    Args:
        progress: sees that it is fetched.
        script: the one that is wanted.

    Raises:
        WsdError: it cannot be fetched, or the folder that `WSD_LOCAL_LLAMA_CPP` names holds none.
    """
    if named := os.environ.get("WSD_LOCAL_LLAMA_CPP"):
        folder = expanded(named).absolute()
        missing = [name for name in (script, *_SHARED) if not (folder / name).exists()]
        if missing:
            raise WsdError(f"{folder}: holds no {missing[0]}: WSD_LOCAL_LLAMA_CPP must name llama.cpp's source folder")
        return folder
    version = metadata.version("llama-cpp-python")
    folder = cache_dir().absolute() / f"llama.cpp-converters-{version}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as made:
        archive = Path(made) / "source.tar.gz"
        _download(version, archive, progress)
        unpacked = Path(made) / "unpacked"
        _unpack(archive, unpacked)
        try:
            unpacked.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    """Take the converter out of llama-cpp-python's source archive."""
    with tarfile.open(archive) as source:
        for member in source:
            parts = PurePosixPath(member.name).parts[1:]
            inside = parts[2:]
            if parts[:2] != ("vendor", "llama.cpp") or not inside or inside[0] not in _UNPACKED:
                continue
            data = source.extractfile(member) if member.isfile() and ".." not in inside else None
            if data is not None:
                target = folder.joinpath(*inside)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data.read())
    if missing := [name for name in (SCRIPT, ADAPTER_SCRIPT) if not (folder / name).is_file()]:
        raise WsdError(f"the source archive of llama-cpp-python holds no {missing[0]}; {_INSTEAD}")


def _download(version: str, archive: Path, progress: StepProgress) -> None:
    """Fetch the source archive of llama-cpp-python from the package index that pip uses, and check its hash."""
    from wsd_local.system.network import AGENT, one_line, session, without_secrets

    if version not in ARCHIVES:
        raise WsdError(f"the hash of llama-cpp-python {version}'s source archive is not known here; {_INSTEAD}")
    index = _package_index()
    page = f"{index.rstrip('/')}/llama-cpp-python/"
    shown = without_secrets(page)
    progress("fetching llama.cpp's converter", 0)
    accepted = {"Accept": "application/vnd.pypi.simple.v1+html, text/html;q=0.9", "User-Agent": AGENT}
    try:
        client: Any = session()
        answer = client.get(page, headers=accepted, timeout=_PATIENCE)
        answer.raise_for_status()
        wanted = f"llama_cpp_python-{version}.tar.gz"
        found = {url.rpartition("/")[2]: url for url, _ in _HASHED.findall(answer.text)}
        if wanted not in found:
            raise WsdError(f"{shown} lists no {wanted} with its hash; {_INSTEAD}")
        url = urllib.parse.urljoin(str(answer.url), found[wanted])
        digest = _stored(client, url, archive)
    except WsdError:
        raise
    except Exception as error:
        what = one_line(next(iter(str(error).splitlines()), "") or type(error).__name__)
        raise WsdError(f"llama.cpp's converter cannot be fetched from {shown}: {what}; {_INSTEAD}") from error
    if digest != ARCHIVES[version]:
        raise WsdError(
            f"{without_secrets(url)}: is not what its hash promises (SHA-256 {digest}, and it should be "
            f"{ARCHIVES[version]}); try again, or {_INSTEAD}"
        )


def _stored(client: Any, url: str, archive: Path) -> str:
    """Write what an address holds to a file: its SHA-256."""
    from wsd_local.system.network import AGENT, without_secrets

    digest, size = hashlib.sha256(), 0
    headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
    with client.stream("GET", url, headers=headers, timeout=_PATIENCE) as answer, archive.open("wb") as file:
        answer.raise_for_status()
        for chunk in answer.iter_bytes():
            size += len(chunk)
            if size > _LARGEST_ARCHIVE:
                raise WsdError(f"{without_secrets(url)}: is far larger than llama.cpp's source; {_INSTEAD}")
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _package_index() -> str:
    """The package index that pip is configured for."""
    if named := os.environ.get("PIP_INDEX_URL") or os.environ.get("UV_INDEX_URL"):
        return named
    needs = ("PIP_CONFIG_FILE", "XDG_CONFIG_DIRS")
    return output(["pip", "config", "get", "global.index-url"], needs=needs).strip() or "https://pypi.org/simple"


# -- the program ---------------------------------------------------------------------------------------------


def _convert_without_foreign_code() -> None:
    """Run llama.cpp's converter in this process: `sys.argv` holds its path and its arguments.

    It loads tokenizers with `trust_remote_code=True`. Here transformers does not get to see that.
    """
    import runpy

    dynamic_module_utils = import_module("transformers.dynamic_module_utils")

    def resolved(_trust: object, _name: object, has_local: bool, has_remote: bool, *_: object, **__: object) -> bool:
        if has_remote and not has_local:
            raise ValueError("it brings code of its own, and no code of a checkpoint is run")
        return False

    def refused(*_: object, **__: object) -> None:
        raise ValueError("it wants code of its own to be run, and no code of a checkpoint is run")

    # Fails if transformers has renamed them, and then nothing is converted.
    for name, function in (("resolve_trust_remote_code", resolved), ("get_class_from_dynamic_module", refused)):
        getattr(dynamic_module_utils, name)
        setattr(dynamic_module_utils, name, function)
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    _convert_without_foreign_code()
