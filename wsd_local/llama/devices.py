"""Accelerators, the CPU's features, and free memory, as llama.cpp and the system report them."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path
from typing import Any

import llama_cpp

from wsd_local.core.resources import Device, Machine
from wsd_local.llama.build import library_folder, version
from wsd_local.llama.logs import forward_logs

_GPU, _IGPU = 1, 2
"""`GGML_BACKEND_DEVICE_TYPE_…`."""


def machine(threads: int) -> Machine:
    """This machine, now."""
    free, total = host_memory()
    return Machine(tuple(devices()), free, total, threads)


def devices() -> list[Device]:
    """Accelerators that llama.cpp can offload to, in its order."""
    forward_logs()
    found = []
    for handle in offload_devices():
        kind = _kind(handle)
        name, text = (
            str(
                ggml_function(f"ggml_backend_dev_{what}", ctypes.c_char_p, ctypes.c_void_p)(handle).decode(
                    errors="replace"
                )
            )
            for what in ("name", "description")
        )
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        ggml_function("ggml_backend_dev_memory", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(
            handle, ctypes.byref(free), ctypes.byref(total)
        )
        found.append(Device(name, text, free.value, total.value, shared=kind == _IGPU or sys.platform == "darwin"))
    return found


def offload_devices() -> list[Any]:
    """The native devices that llama.cpp can offload to."""
    return [handle for handle in _handles() if _kind(handle) in (_GPU, _IGPU)]


def offload_names() -> list[str]:
    """Their names."""
    name = ggml_function("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)
    return [str(name(handle).decode(errors="replace")) for handle in offload_devices()]


def _kind(handle: Any) -> int:
    return int(ggml_function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)(handle))


def handle_of(name: str) -> Any:
    """The native device of that name."""
    return ggml_function("ggml_backend_dev_by_name", ctypes.c_void_p, ctypes.c_char_p)(name.encode())


def backends() -> list[str]:
    """Names of the back ends that the installed library was built with."""
    forward_logs()
    handles = _handles()
    register = ggml_function("ggml_backend_dev_backend_reg", ctypes.c_void_p, ctypes.c_void_p)
    name = ggml_function("ggml_backend_reg_name", ctypes.c_char_p, ctypes.c_void_p)
    return list(dict.fromkeys(name(register(handle)).decode(errors="replace") for handle in handles))


def supports_offload() -> bool:
    """Whether the installed library can use an accelerator at all."""
    return bool(llama_cpp.llama_supports_gpu_offload())


def cpu_features() -> frozenset[str]:
    """The CPU's features, by llama.cpp's names (AVX2, NEON, …)."""
    info = llama_cpp.llama_print_system_info().decode(errors="replace")
    return frozenset(re.findall(r"(\w+) = 1", info))


def library_version() -> str:
    """Versions of the binding and of llama.cpp's tensor library."""
    ggml = ggml_function("ggml_version", ctypes.c_char_p)().decode(errors="replace")
    return f"llama-cpp-python {version()}, ggml {ggml}"


def host_memory() -> tuple[int, int]:
    """Free and total bytes of the machine's own memory; a container's limit counts."""
    import psutil

    memory = psutil.virtual_memory()
    free, total = int(memory.available), int(memory.total)
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used -= int(statistics.get("inactive_file", 0))
    except (OSError, ValueError):
        return free, total
    return min(free, max(limit - used, 0)), min(total, limit)


def _handles() -> list[Any]:
    count = ggml_function("ggml_backend_dev_count", ctypes.c_size_t)()
    get = ggml_function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    return [get(index) for index in range(count)]


def ggml_function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of ggml's public interface, which the binding does not wrap."""
    candidates = [llama_cpp.llama_cpp._lib, *sorted(library_folder().glob("*ggml*.dll"))]
    for candidate in candidates:
        found = ctypes.CDLL(str(candidate)) if isinstance(candidate, Path) else candidate
        if hasattr(found, name):
            # A prototype of our own: the library's attribute is shared, its types would be too.
            address = ctypes.cast(getattr(found, name), ctypes.c_void_p).value
            assert address is not None
            return ctypes.CFUNCTYPE(result, *arguments)(address)
    raise AttributeError(f"the installed llama.cpp has no {name}")
