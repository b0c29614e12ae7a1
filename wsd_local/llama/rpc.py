"""llama.cpp's RPC, if the installed library was built with it: using the devices of workers, and being one.

Contract: llama.cpp's client ends the process where a worker is gone or answers wrongly, and waits for ever where
nothing comes; so `register` and what follows it belong in a child process (`wsd_local.workers.process`), after
`wsd_local.system.rpc.ask` has found the worker well. `serve` returns only if the server cannot go on.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

from wsd_local.errors import WorkerError
from wsd_local.llama.devices import ggml_function, host_memory, offload_devices
from wsd_local.llama.logs import captured, cause, forward_logs

_CPU = 0
"""`GGML_BACKEND_DEVICE_TYPE_CPU`."""
_GET_MEMORY = 2
"""Place of `get_memory` in ggml's `struct ggml_backend_device`."""


def available() -> bool:
    """Whether the installed library has RPC."""
    return _registry() is not None


def register(endpoint: str) -> None:
    """Add a worker's devices to those of this process: RPC0, RPC1, … in the order of registering.

    The connection stays as long as the process: a worker serves one client, and no other one gets between.

    Raises:
        WorkerError: it has no devices.
    """
    forward_logs()
    add = _function("ggml_backend_rpc_add_server", ctypes.c_void_p, ctypes.c_char_p)
    with captured() as lines:
        found = add(endpoint.encode())
    if not found:
        raise WorkerError(f"the RPC worker {endpoint} offers no device: {cause(lines)}")
    ggml_function("ggml_backend_register", None, ctypes.c_void_p)(found)
    first = ggml_function("ggml_backend_reg_dev_get", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(found, 0)
    ggml_function("ggml_backend_dev_init", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(first, None)


def serve(endpoint: str, cache: str | None, threads: int) -> None:
    """Serve this machine's accelerators, or its CPU if there are none, until the process ends.

    What it does is written to the process's standard output by llama.cpp itself. An endpoint without a port makes it
    write its version and return.

    Args:
        endpoint: HOST:PORT, the host an IPv4 address.
        cache: folder in which large weights are kept, so that they need not be sent again.
        threads: for the CPU.
    """
    forward_logs()
    devices = offload_devices() or [_cpu()]
    start = _function(
        "ggml_backend_rpc_start_server",
        None,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_size_t,
        ctypes.c_void_p,
    )
    handles = (ctypes.c_void_p * len(devices))(*devices)
    folder = None if cache is None else cache.encode()
    start(endpoint.encode(), folder, threads, len(devices), ctypes.cast(handles, ctypes.c_void_p))


def report_free_memory() -> Any:
    """Let the CPU's device name the memory that is free; what is returned must be kept as long as it is used.

    ggml counts all memory of the machine as free where it is not Windows, so a client would place more than there is.
    """
    if sys.platform == "win32":
        return None
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t))

    def memory(_device: int, free: Any, total: Any) -> None:
        free[0], total[0] = host_memory()

    callback, device = kind(memory), _cpu()
    slots = (ctypes.c_void_p * (_GET_MEMORY + 1)).from_address(device)
    before = slots[_GET_MEMORY]
    slots[_GET_MEMORY] = ctypes.cast(callback, ctypes.c_void_p).value
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ask = ggml_function("ggml_backend_dev_memory", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    ask(device, ctypes.byref(free), ctypes.byref(total))
    if total.value != host_memory()[1]:  # the structure is another one
        slots[_GET_MEMORY] = before
        return None
    return callback


def _cpu() -> int:
    handle = ggml_function("ggml_backend_dev_by_type", ctypes.c_void_p, ctypes.c_int)(_CPU)
    return int(handle)


def _registry() -> Any:
    forward_logs()
    return ggml_function("ggml_backend_reg_by_name", ctypes.c_void_p, ctypes.c_char_p)(b"RPC")


def _function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of the RPC back end, by ggml's own look-up.

    Raises:
        WorkerError: the installed library has no RPC.
    """
    registry = _registry()
    look_up = ggml_function("ggml_backend_reg_get_proc_address", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)
    address = look_up(registry, name.encode()) if registry else None
    if not address:
        raise WorkerError("the installed llama.cpp has no RPC; wsd-local doctor shows the command that adds it")
    return ctypes.CFUNCTYPE(result, *arguments)(address)
