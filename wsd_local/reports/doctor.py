"""What is installed here and whether it works.

Contract: never fails itself: a fact that cannot be determined becomes a line that states this. Names of the user and of
the machine are left out of the text, so that it can be pasted into a bug report.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from wsd_local.errors import WorkerError, WsdError, reason
from wsd_local.files import existing_folder
from wsd_local.system.child import use
from wsd_local.system.redaction import redacted
from wsd_local.units import gb, gib, plural
from wsd_local.version import __version__

_PACKAGES = ("llama-cpp-python", "huggingface-hub", "gguf", "numpy", "textual", "rich", "cyclopts", "jinja2", "psutil")
QUESTION = "What is the capital of France?"
RPC = "-DGGML_RPC=on"
"""Option of llama.cpp's build that lets it use other machines."""
_FLAGS = {"cuda": "-DGGML_CUDA=on", "metal": "-DGGML_METAL=on", "rocm": "-DGGML_HIP=on"}
NO_AMX = "-U__AMX_INT8__"
"""Compiler flag that leaves out llama.cpp's code for AMX, which GCC 12.2 and others before 14 miscompile."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Facts by heading, each a list of lines, and what is wrong."""

    facts: dict[str, list[str]]
    problems: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON, as private as the text."""
        shown: dict[str, Any] = redacted(asdict(self))
        return shown

    def text(self) -> str:
        """Plain text, the user's home folder written as ~, without secrets."""
        lines = []
        for heading, facts in self.facts.items():
            lines += [heading, *(f"  {fact}" for fact in facts)]
        lines += ["problems", *(f"  {problem}" for problem in self.problems or ["none found"])]
        return "\n".join(map(redacted, lines)) + "\n"


def diagnose(base: Callable[[list[str]], list[str]] | None = None) -> Diagnosis:
    """Look at everything; `base` adds what a server can do as a base."""
    problems: list[str] = []

    def collected(collect: Callable[[list[str]], list[str]]) -> list[str]:
        try:
            return collect(problems)
        except Exception as error:
            problems.append(f"{collect.__name__.strip('_')}: {' '.join(str(error).split()) or type(error).__name__}")
            return ["unknown, see problems"]

    collectors = {
        "versions": _versions,
        "llama.cpp": _library,
        "devices": _devices,
        "paths": _paths,
        "models": _models,
        "self-test": _self_test,
        **({} if base is None else {"base": base}),
    }
    return Diagnosis({heading: collected(collect) for heading, collect in collectors.items()}, problems)


def _versions(_problems: list[str]) -> list[str]:
    lines = [
        f"wsd-local {__version__}, Python {platform.python_version()} ({platform.python_implementation()})",
        f"{platform.system()} {platform.release()}, {platform.machine()}",
    ]
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} is not installed")
    return [*lines, ", ".join(found)]


def _library(problems: list[str]) -> list[str]:
    from wsd_local.library.vetting import amx_works
    from wsd_local.llama.devices import backends, cpu_features, devices, library_version, supports_offload

    lines = [
        library_version(),
        f"back ends: {', '.join(backends())}",
        f"CPU features: {' '.join(sorted(cpu_features()))}",
        f"can offload: {'yes' if supports_offload() else 'no'}",
        _rpc(),
    ]
    command = reinstall_command(supports_offload(), bool(devices()), gpu_here())
    if command is not None:
        problems.append(f"there is a GPU, and the installed llama.cpp cannot use it; reinstall it with: {command}")
    if not amx_works():
        problems.append(
            "the installed llama.cpp crashes in its code for AMX, so replies do without its fast kernels; reinstall it "
            f"without that code: {install_command(gpu_here(), amx=True)}"
        )
    return lines


def _rpc() -> str:
    """Whether the installed library can use other machines, and how it learns to."""
    from wsd_local.llama.rpc import available
    from wsd_local.workers.devices import protocol_version

    if not available():
        return f"RPC: no; --rpc and rpc-worker need it, and this command adds it: {install_command(gpu_here())}"
    return f"RPC: yes, version {'.'.join(map(str, protocol_version()))} of the protocol"


def gpu_here() -> str | None:
    """The kind of GPU in this machine, as far as it is detected without a driver of our own; None if there is none."""
    if sys.platform == "darwin":
        return "metal" if platform.machine() == "arm64" else None
    found = use(["nvidia-smi", "-L"], patience=20)
    if found is not None and found[0] == 0 and b"GPU" in found[1]:
        return "cuda"
    return "rocm" if Path("/dev/kfd").exists() else None


def reinstall_command(can_offload: bool, sees_device: bool, kind: str | None) -> str | None:
    """The command that makes the installed library use the GPU that is here; None if there is nothing to do."""
    if kind is None or (can_offload and sees_device):
        return None
    return install_command(kind)


def install_command(kind: str | None, *, amx: bool | None = None) -> str:
    """The command that compiles llama.cpp anew: with RPC, for the GPU that is here, and without its code for AMX.

    `amx`: whether the processor has AMX; None: as the system says.
    """
    package = f"llama-cpp-python=={version('llama-cpp-python')}"
    flags = " ".join([RPC, *([_FLAGS[kind]] if kind is not None else [])])
    without = f"CFLAGS={NO_AMX} CXXFLAGS={NO_AMX} " if (_has_amx() if amx is None else amx) else ""
    install = f'"{sys.executable}" -m pip install --no-cache-dir --force-reinstall --no-deps {package}'
    return f'{without}CMAKE_ARGS="{flags}" {install}'


def _has_amx() -> bool:
    try:
        return "amx_int8" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def _devices(problems: list[str]) -> list[str]:
    from wsd_local.config import read_config
    from wsd_local.llama.devices import devices, host_memory
    from wsd_local.llama.options import default_threads
    from wsd_local.workers.devices import remote_devices

    free, total = host_memory()
    settings = read_config().settings
    threads = settings.get("threads") or default_threads()
    lines = [f"memory: {gib(free)} free of {gib(total)}; {os.cpu_count()} CPUs, {plural(threads, 'thread')} used"]
    found = devices()
    if (rpc := settings.get("rpc")) is not None:
        try:
            found += remote_devices(rpc)
        except WorkerError as error:
            problems.append(str(error))
    for device in found:
        shared = ", shares the machine's memory" if device.shared else ""
        size = f"{gib(device.free)} free of {gib(device.total)}"
        lines.append(f"{device.name}: {device.description}, {size}{shared}")
    return lines if len(lines) > 1 else [*lines, "no accelerator that llama.cpp can use"]


def _paths(problems: list[str]) -> list[str]:
    from wsd_local.paths import cache_dir, config_file, data_dir, package_models_dir

    hub = os.environ.get("HF_HUB_CACHE") or os.environ.get("HF_HOME") or str(Path.home() / ".cache/huggingface")
    paths = {
        "configuration": config_file(),
        "data": data_dir(),
        "cache": cache_dir(),
        "embedded pair": package_models_dir(),
        "Hub cache": Path(hub),
    }
    for name in ("data", "cache", "Hub cache"):
        trouble = unwritable(paths[name])
        if trouble is not None:
            problems.append(f"{name}: nothing can be written to {paths[name]}: {trouble}")
    lines = [f"{name}: {path}{'' if path.exists() else ' (not there yet)'}" for name, path in paths.items()]
    return [*lines, _kept_prompts()]


def _kept_prompts() -> str:
    from wsd_local.config import read_config
    from wsd_local.runtime.prompt_cache import prompt_folder
    from wsd_local.runtime.prompt_files import PromptFiles

    setting = str(read_config().settings.get("prompt_cache", "auto"))
    kept = PromptFiles(prompt_folder(setting), 0).all()
    size = gb(sum(state.total for state in kept))
    return f"kept prompts: {prompt_folder(setting)}, {size} for {plural(len(kept), 'prompt')}" + (
        " (turned off)" if setting == "off" else ""
    )


def unwritable(folder: Path) -> str | None:
    """Why no file can be made in a folder, or in the one that it would be made in; None if one can."""
    try:
        with tempfile.TemporaryFile(dir=existing_folder(folder)):
            return None
    except OSError as error:
        return reason(error)


def _models(problems: list[str]) -> list[str]:
    from wsd_local.library.gguf import read_model
    from wsd_local.library.listing import inventory
    from wsd_local.placement.kernels import slow_type

    lines = []
    for model in inventory().models:
        if model.usable:
            assert model.path is not None
            slow = slow_type(read_model(Path(model.path)))
            lines.append(
                f"{model.name}: {model.quantization}, {model.parameters}"
                + ("" if slow is None else f"; {slow.sentence()}")
            )
        elif model.usable is False:
            problems.append(f"model {model.name}: {model.description}")
    return lines


def _self_test(problems: list[str]) -> list[str]:
    from wsd_local.runtime.pair import load

    start = time.perf_counter()
    try:
        with load("demo", threads=1) as pair:
            reply = pair.reply(QUESTION)
    except WsdError as error:
        problems.append(f"self-test: {error}")
        return ["failed, see problems"]
    took = time.perf_counter() - start
    text = re.sub(r"\s+", " ", reply.text)
    if "Paris" not in text:
        problems.append(f"self-test: the embedded pair should name Paris, and says {text!r}")
    return [f"{QUESTION} → {text} ({took:.1f} s, switch: {reply.switch.reason})"]
