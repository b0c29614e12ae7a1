"""Models made on this machine: a checkpoint becomes a GGUF file, a GGUF file one of fewer bits.

Contract: llama.cpp's own converter and quantisation do the work, each in a child process that is killed when it is to
stop. What is made appears under its name only when it is complete, and never in place of another file unless that was
asked for. The converter is the one of the llama.cpp that is installed, from the source archive of llama-cpp-python on
the package index, checked against its hash and kept in the cache folder; `WSD_LOCAL_LLAMA_CPP` names a folder with
llama.cpp's source instead. No code of a checkpoint is run, whatever it asks for.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module, metadata, util
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, get_args

from wsd_local.atomic import replaced
from wsd_local.errors import CancelledError, ModelError, UsageError, WsdError
from wsd_local.paths import cache_dir
from wsd_local.units import MIB, gb

Kind = Literal["auto", "f32", "f16", "bf16", "q8_0"]
Progress = Callable[[str, float], None]
"""Called with what is being done and how much of it, 0 to 1."""
Stoppable = Callable[[Callable[[], None]], None]
"""Called with a function that ends the work at once, from any thread."""

EXTRA = ("torch", "transformers", "sentencepiece")
_BITS = {"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5}
_SCRIPT = "convert_hf_to_gguf.py"
_NEEDED = (_SCRIPT, "LICENSE", "conversion", "gguf-py")
_TENSOR_LINE = re.compile(r"\[ *(\d+)/ *(\d+)\]")
_QUANT_SIZE = re.compile(r"quant size += +([\d.]+) MiB \(([\d.]+) BPW\)")
_PERCENT = re.compile(r"Writing: +(\d+)%")
_COMPLAINT = re.compile(r"(?:ERROR:[\w.-]+:|[\w.]*(?:Error|Exception|Failure|Exit): )(?P<what>.+)")
_QUANT_COMPLAINT = re.compile(r"failed to quantize: (?P<what>.+)|.*(?P<abort>GGML_ASSERT\(.*|fatal error.*)")
_LONGEST_CAUSE = 300
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*", re.ASCII)
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_HASHED = re.compile(r'href="(?P<url>[^"#]+)#sha256=(?P<sha>[0-9a-f]{64})"')
_DESCRIBING = ("*.json", "*.jinja", "*.model", "tokenizer*", "merges.txt", "vocab.txt")
_WEIGHTS: tuple[tuple[str, ...], ...] = (("model*.safetensors",), ("pytorch_model*.bin",))
_PLAIN_TYPES = ("F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint folder on this machine; `repo` and `revision` if it came from the Hub."""

    folder: Path
    repo: str | None = None
    revision: str | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        return (self.repo or self.folder.resolve().name).rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Quantized:
    """What quantising gave: sizes in bytes before and after, and bits per weight."""

    path: Path
    before: int
    after: int
    bits: float


def nothing(*_: object) -> None:
    """Tells nobody."""


# -- names and files -----------------------------------------------------------------------------------------


def check_name(name: str) -> str:
    """The name, if a model can have it.

    Raises:
        UsageError: it cannot be told from a path, or has signs that a file's name should not have.
    """
    if not _NAME.fullmatch(name) or name.lower().endswith(".gguf"):
        raise UsageError(f"{name!r} cannot be a model's name: use letters, digits and - . _ +, without .gguf")
    return name


def check_free(output: Path, force: bool) -> None:
    """Raise `UsageError` if a file is in the way and may not be replaced, or something that is no file."""
    if output.is_dir():
        raise UsageError(f"{output}: is a folder; name a file")
    if output.exists() and not force:
        raise UsageError(f"{output}: exists already; --force replaces it, --as and --output choose another name")


def check_disk(output: Path, needed: int) -> None:
    """Raise `WsdError` if the disk of `output` has not `needed` bytes free."""
    folder = next(folder for folder in output.absolute().parents if folder.exists())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise WsdError(f"{folder}: {gb(needed)} are needed and {gb(free)} are free; make room, or choose another disk")


# -- checkpoints ---------------------------------------------------------------------------------------------


def is_repo(source: str) -> bool:
    """Whether `source` reads like the name of a repository on the Hub, and is no folder here."""
    return not Path(source).exists() and _REPO.fullmatch(source) is not None


def fetched(repo: str) -> Checkpoint:
    """A checkpoint of the Hub, fetched into the Hub's own cache or found there.

    Of the files at the top of the repository: safetensors, or PyTorch's files if there are none, and what describes
    them; no code.

    Raises:
        ModelError: there is no such repository, it may not be read, or it holds no checkpoint.
        WsdError: the Hub cannot be reached, or the disk is full.
    """
    from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    try:
        try:
            info = HfApi().model_info(repo, files_metadata=True)
        except HfHubHTTPError:
            raise
        except Exception:  # no network, or none wanted
            folder = Path(snapshot_download(repo, local_files_only=True))
            return Checkpoint(folder, repo, folder.name)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or () if "/" not in file.rfilename}
        wanted = _wanted_files(repo, list(sizes))
        missing = [
            name for name in wanted if not isinstance(try_to_load_from_cache(repo, name, revision=info.sha), str)
        ]
        check_disk(Path(constants.HF_HUB_CACHE) / repo, sum(sizes[name] for name in missing))
        folder = Path(snapshot_download(repo, revision=info.sha, allow_patterns=wanted))
    except WsdError:
        raise
    except Exception as error:
        raise _hub_error(repo, error) from error
    return Checkpoint(folder, repo, info.sha)


def _wanted_files(repo: str, names: list[str]) -> list[str]:
    described = [name for name in names if _fits(name, _DESCRIBING)]
    for patterns in _WEIGHTS:
        found = [name for name in names if _fits(name, patterns)]
        if found and "config.json" in described:
            return [*described, *found]
    raise ModelError(f"{repo}: holds no checkpoint: config.json and *.safetensors; models pull fetches GGUF files")


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _hub_error(repo: str, error: Exception) -> WsdError:
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return ModelError(
            f"{repo}: is open only to those who accepted its terms: accept them at https://huggingface.co/{repo}, "
            "then log in with: hf auth login"
        )
    if isinstance(error, RepositoryNotFoundError):
        return ModelError(f"{repo}: there is no such repository on the Hub, or it is private; check its name")
    if isinstance(error, LocalEntryNotFoundError):
        return WsdError(f"{repo}: is not on this machine, and the Hub cannot be reached; check the network")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return WsdError(f"{repo}: cannot be fetched: {lines[0] if lines else type(error).__name__}")


def local(source: str) -> Checkpoint:
    """A checkpoint folder on this machine.

    Raises:
        ModelError: there is no such folder, or it holds no configuration or no weights.
    """
    folder = Path(source).expanduser()
    if folder.is_file():
        raise ModelError(f"{folder}: is a file; name the checkpoint's folder (models quantize takes GGUF files)")
    if not folder.exists():
        raise ModelError(f"{folder}: no such folder; name one, or a repository of the Hub (OWNER/NAME)")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: holds no config.json; name the folder of a Hugging Face checkpoint")
    return Checkpoint(folder)


def weights(folder: Path) -> Counter[str]:
    """How many numbers of each type the weights of a checkpoint are, by safetensors' names of the types.

    Raises:
        ModelError: there are no weights, a part of them is missing, or a file is damaged.
    """
    index = folder / "model.safetensors.index.json"
    names = {path.name for path in folder.glob("*.safetensors")}
    if index.is_file():
        try:
            wanted = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise ModelError(f"{index}: is damaged; fetch or copy it again") from error
        if missing := sorted(map(str, wanted - names)):
            raise ModelError(f"{folder}: {len(missing)} parts of the weights are missing: {', '.join(missing[:3])}")
    total: Counter[str] = Counter()
    for name in names:
        total.update(_safetensors(folder / name))
    if not names:
        size = sum(path.stat().st_size for path in folder.glob("pytorch_model*.bin"))
        total["F16"] = size // 2
    if not total.total():
        raise ModelError(f"{folder}: holds no weights (*.safetensors); fetch or copy them beside config.json")
    return total


def _safetensors(path: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(length)) if length <= size - 8 else {}
        end = 0
        for name, tensor in header.items():
            if name != "__metadata__":
                end = max(end, tensor["data_offsets"][1])
                found[tensor.get("dtype", "")] += math.prod(tensor.get("shape", ()))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(f"{path}: is damaged: its header cannot be read; fetch or copy it again") from error
    if 8 + length + end > size:
        raise ModelError(f"{path}: is damaged: the end is missing; fetch or copy it again")
    return found


def chosen_kind(kind: Kind, numbers: Counter[str]) -> Kind:
    """The type to convert to: `auto` is the 16-bit type of most weights, f16 if they have none, as llama.cpp has it."""
    if kind != "auto":
        return kind
    return "bf16" if numbers.most_common(1)[0][0] == "BF16" else "f16"


# -- llama.cpp's converter -----------------------------------------------------------------------------------


def require_extra() -> None:
    """Raise `WsdError` unless what the converter imports is installed."""
    missing = [name for name in EXTRA if util.find_spec(name) is None]
    if missing:
        command = f'{sys.executable} -m pip install "wsd-local[convert]"'
        raise WsdError(f"converting needs {', '.join(missing)}; install with: {command}")


def converter(progress: Progress = nothing) -> Path:
    """The folder with llama.cpp's converter, fetched once for each version of llama-cpp-python.

    Raises:
        WsdError: it cannot be fetched, or the folder that `WSD_LOCAL_LLAMA_CPP` names holds none.
    """
    if named := os.environ.get("WSD_LOCAL_LLAMA_CPP"):
        folder = Path(named).expanduser().absolute()
        missing = [name for name in _NEEDED if not (folder / name).exists() and name != "LICENSE"]
        if missing:
            raise WsdError(f"{folder}: holds no {missing[0]}: WSD_LOCAL_LLAMA_CPP must name llama.cpp's source folder")
        return folder
    version = metadata.version("llama-cpp-python")
    folder = cache_dir().absolute() / f"llama.cpp-{version}"
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
            if not folder.is_dir():  # else somebody else was faster
                raise
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    """Take the converter out of llama-cpp-python's source archive."""
    with tarfile.open(archive) as source:
        for member in source:
            parts = PurePosixPath(member.name).parts[1:]
            inside = parts[2:]
            if parts[:2] != ("vendor", "llama.cpp") or not inside or inside[0] not in _NEEDED:
                continue
            data = source.extractfile(member) if member.isfile() and ".." not in inside else None
            if data is not None:
                target = folder.joinpath(*inside)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data.read())
    if not (folder / _SCRIPT).is_file():
        raise WsdError(f"the source archive of llama-cpp-python holds no {_SCRIPT}; {_INSTEAD}")


_INSTEAD = "unpack llama.cpp's source yourself and name its folder in WSD_LOCAL_LLAMA_CPP"


def _download(version: str, archive: Path, progress: Progress) -> None:
    """Fetch the source archive of llama-cpp-python from the package index that pip uses, and check its hash."""
    from huggingface_hub import get_session

    index = _package_index()
    page = f"{index.rstrip('/')}/llama-cpp-python/"
    progress("fetching llama.cpp's converter", 0)
    try:
        session: Any = get_session()
        answer = session.get(page, headers={"Accept": "application/vnd.pypi.simple.v1+html, text/html;q=0.9"})
        answer.raise_for_status()
        wanted = f"llama_cpp_python-{version}.tar.gz"
        found = {url.rpartition("/")[2]: (url, sha) for url, sha in _HASHED.findall(answer.text)}
        if wanted not in found:
            raise WsdError(f"{page} lists no {wanted} with its hash; {_INSTEAD}")
        url, sha = found[wanted]
        answer = session.get(urllib.parse.urljoin(str(answer.url), url))
        answer.raise_for_status()
        data: bytes = answer.content
    except WsdError:
        raise
    except Exception as error:
        what = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise WsdError(f"llama.cpp's converter cannot be fetched from {page}: {what}; {_INSTEAD}") from error
    if hashlib.sha256(data).hexdigest() != sha:
        raise WsdError(f"{url}: is not what its hash promises; try again, or {_INSTEAD}")
    archive.write_bytes(data)


def _package_index() -> str:
    """The package index that pip is configured for."""
    if named := os.environ.get("PIP_INDEX_URL") or os.environ.get("UV_INDEX_URL"):
        return named
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    asked = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "https://pypi.org/simple"


# -- the work ------------------------------------------------------------------------------------------------


def convert(
    checkpoint: Checkpoint,
    output: Path,
    kind: Kind = "auto",
    *,
    force: bool = False,
    progress: Progress = nothing,
    stoppable: Stoppable = nothing,
) -> Path:
    """Make a GGUF file of a checkpoint.

    Args:
        checkpoint: from `local` or `fetched`.
        output: the file to make.
        kind: type of the weights in it.
        force: replace a file of that name.
        progress: called while the file is written.
        stoppable: called with a function that ends the work.

    Raises:
        UsageError: there is such a file, or no such type.
        ModelError: the checkpoint is damaged, or llama.cpp does not know how to convert it.
        CancelledError: it was stopped.
        WsdError: torch or transformers are missing, the converter cannot be fetched, the disk is full.
    """
    if kind not in get_args(Kind):
        raise UsageError(f"there is no type {kind!r}; known are {', '.join(get_args(Kind))}")
    require_extra()
    check_free(output, force)
    numbers = weights(checkpoint.folder)
    kind = chosen_kind(kind, numbers)
    check_disk(output, int(numbers.total() * _BITS[kind] / 8))
    script = converter(progress) / _SCRIPT

    def heard(line: str) -> None:
        if percent := _PERCENT.search(line):
            progress("converting", int(percent[1]) / 100)

    progress("reading the checkpoint", 0)
    with replaced(output) as part:
        # The converter takes its output's name for a format string.
        name = part.with_name(part.name.replace("{", "{{").replace("}", "}}")).absolute()
        options = ["--outfile", str(name), "--outtype", kind, "--model-name", checkpoint.name]
        folder = str(checkpoint.folder.absolute())
        code, said = _child(["wsd_local.convert", str(script), *options, folder], heard, stoppable)
        if code != 0 or not part.stat().st_size:
            raise ModelError(f"{checkpoint.folder}: cannot be converted: {_cause(code, said, _COMPLAINT)}")
    return output


def quantize(
    source: Path,
    output: Path,
    kind: str,
    *,
    threads: int | None = None,
    allow_requantize: bool = False,
    imatrix: Path | None = None,
    force: bool = False,
    progress: Progress = nothing,
    stoppable: Stoppable = nothing,
) -> Quantized:
    """Make a GGUF file of fewer bits. The parts of a split model become one file.

    Args:
        source: the file, or the first part.
        output: the file to make.
        kind: one of `wsd_local.llama.quantize.file_types()`.
        threads: CPU threads; all, if None.
        allow_requantize: take a source that is quantised already.
        imatrix: importance matrix, a GGUF file; types of less than 3 bits need one.
        force: replace a file of that name.
        progress: called for each tensor.
        stoppable: called with a function that ends the work.

    Raises:
        UsageError: there is no such type, the output exists or is the source, the source is quantised already, or the
            type needs an importance matrix.
        ModelError: a file is missing, damaged, or refused by llama.cpp.
        CancelledError: it was stopped.
        WsdError: the disk is full.
    """
    from wsd_local.header import read_model
    from wsd_local.llama.quantize import Job, file_type, read_imatrix

    kind = file_type(kind)
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}: it must be 1 or more")
    headers = read_model(source)
    if output.exists() and any(output.samefile(header.path) for header in headers):
        raise UsageError(f"{output}: is the file that is to be quantised; choose another --output")
    check_free(output, force)
    before = Counter(tensor.type for header in headers for tensor in header.tensors if len(tensor.shape) > 1)
    types = [name for name, _ in before.most_common() if name not in _PLAIN_TYPES]
    if types and not allow_requantize:
        raise UsageError(
            f"{source}: is quantised already ({types[0]}), and quantising again loses more; "
            "take the unquantised model, or add --allow-requantize"
        )
    if imatrix is not None:
        read_imatrix(imatrix)
    job = Job(
        str(source.absolute()),
        str(output.absolute()),
        kind,
        threads or 0,
        allow_requantize,
        str(imatrix.absolute()) if imatrix else None,
        plan=True,
    )
    program = "wsd_local.llama.quantize"
    code, said = _child([program, job.as_json()], nothing, stoppable)
    _expect(source, code, said)
    if imatrix is None and any("will require an imatrix" in line for line in said):
        raise UsageError(f"{kind} needs an importance matrix (--imatrix); types from IQ3_S and Q3_K_S up need none")
    planned, _ = _quantized_size(said)
    check_disk(output, int(planned) + sum(header.size for header in headers))

    def heard(line: str) -> None:
        if found := _TENSOR_LINE.match(line):
            progress("quantising", (int(found[1]) - 1) / int(found[2]))

    with replaced(output) as part:
        job = Job(job.source, str(part.absolute()), kind, job.threads, allow_requantize, job.imatrix)
        code, said = _child([program, job.as_json()], heard, stoppable)
        _expect(source, code, said)
    _, bits = _quantized_size(said)
    return Quantized(output, sum(header.file_size for header in headers), output.stat().st_size, bits)


def _quantized_size(said: list[str]) -> tuple[float, float]:
    """Bytes of all tensors and bits per weight, in llama.cpp's words."""
    found = next(match for line in reversed(said) if (match := _QUANT_SIZE.search(line)))
    return float(found[1]) * MIB, float(found[2])


def _expect(source: Path, code: int, said: list[str]) -> None:
    if code != 0:
        raise ModelError(f"{source}: cannot be quantised: {_cause(code, said, _QUANT_COMPLAINT)}")


# -- child processes -----------------------------------------------------------------------------------------


def _child(arguments: list[str], heard: Callable[[str], None], stoppable: Stoppable) -> tuple[int, list[str]]:
    """Run a program of this package in a process of its own: its exit code and what it said last.

    Whatever ends this function, the process has ended. It does not see Ctrl-C: only this process decides.
    """
    environment = {name: value for name, value in os.environ.items() if name != "NO_LOCAL_GGUF"}
    environment |= {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8:replace", "GGML_NO_BACKTRACE": "1"}
    environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"}
    stopped = False
    child = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=Path(__file__).parent.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )

    def stop() -> None:
        nonlocal stopped
        stopped = True
        child.kill()

    said: deque[str] = deque(maxlen=1000)
    try:
        stoppable(stop)
        assert child.stdout is not None
        for line in _lines(child.stdout):
            said.append(line)
            heard(line)
        code = child.wait()
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
    if stopped:
        raise CancelledError("stopped")
    return code, list(said)


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """Lines as they come; a progress bar's carriage return ends one too."""
    left = b""
    while block := os.read(stream.fileno(), 1 << 16):
        *lines, left = re.split(rb"[\r\n]", left + block)
        yield from (line.decode(errors="replace") for line in lines if line.strip())
    if left.strip():
        yield left.decode(errors="replace")


def _cause(code: int, said: list[str], pattern: re.Pattern[str]) -> str:
    """The most telling line: the last complaint, or the last line at all."""
    if code == -9:
        return "the process was killed, probably for want of memory"
    for index in range(len(said) - 1, -1, -1):
        if found := pattern.search(said[index]):
            first = next(group.strip() for group in found.groups() if group)
            return " ".join([first, *said[index + 1 :]])[:_LONGEST_CAUSE]
    return said[-1].strip() if said else f"the process ended with exit code {code} and said nothing"


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
