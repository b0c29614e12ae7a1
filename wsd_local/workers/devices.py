"""The RPC of the installed llama.cpp: whether it is there, its version, and the devices that workers offer.

Contract: nothing here lets llama.cpp connect to a worker; what workers offer is asked for by `wsd_local.system.rpc`.
The version is what the library itself writes, in a child process; it is remembered for each build.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from wsd_local.core.resources import Device
from wsd_local.errors import WorkerError
from wsd_local.files import read_memory, write_memory
from wsd_local.paths import cache_dir
from wsd_local.system import child
from wsd_local.system.rpc import Version, ask, endpoints

SERVER = "wsd_local.workers.server"
_VERSION = re.compile(r"RPC server v(\d+)\.(\d+)\.(\d+)")
NO_RPC = "the installed llama.cpp was built without RPC; wsd-local doctor shows the command that adds it"


@dataclass(frozen=True, slots=True)
class Build:
    """Which library is installed: its folder, and when it was changed."""

    folder: str
    changed: int

    @classmethod
    def here(cls) -> Build:
        """The one that this process uses."""
        from wsd_local.llama.build import library_folder

        folder = library_folder()
        return cls(str(folder), folder.stat().st_mtime_ns)


def protocol_version() -> Version:
    """The version of the protocol that the installed library speaks.

    Raises:
        WorkerError: the library has no RPC, or does not name its version.
    """
    from wsd_local.llama.rpc import available

    if not available():
        raise WorkerError(NO_RPC)
    build, path = Build.here(), cache_dir() / "rpc.json"
    known = read_memory(path)
    if known.get("build") == [build.folder, build.changed] and (found := _numbers(known.get("version"))):
        return found
    found = _written_version()
    write_memory(path, {"build": [build.folder, build.changed], "version": list(found)})
    return found


def _written_version() -> Version:
    found = _VERSION.search(child.output([SERVER, "version"]))
    if found is None:
        raise WorkerError("the installed llama.cpp does not name the version of its RPC; wsd-local doctor shows more")
    return int(found[1]), int(found[2]), int(found[3])


def _numbers(value: object) -> Version | None:
    if isinstance(value, list) and len(value) == 3 and all(isinstance(part, int) for part in value):
        return value[0], value[1], value[2]
    return None


def remote_devices(rpc: str) -> tuple[Device, ...]:
    """The devices of the workers in a list of addresses, by the names that llama.cpp will give them, with free memory.

    Raises:
        UsageError: the list is written wrongly.
        WorkerError: the library has no RPC, or a worker cannot be used.
    """
    version = protocol_version()
    workers = [ask(endpoint, version) for endpoint in endpoints(rpc)]
    found = [(worker.endpoint, free, total) for worker in workers for free, total in worker.memory]
    return tuple(
        Device(f"RPC{place}", f"RPC worker {endpoint}", free, total, remote=True)
        for place, (endpoint, free, total) in enumerate(found)
    )
