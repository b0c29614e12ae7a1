"""The process of one untrusted program, started by `wsd_local.system.untrusted`.

Contract: reads its order from standard input as JSON, limits itself, and writes to standard output a line with what
the system still allows (network, processes), then runs the program, and writes the order's token if it came to its end,
or the name of the exception. Imports the standard library alone.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from contextlib import suppress
from typing import Any

_NEW_USERS, _NEW_NETWORK = 0x10000000, 0x40000000
_DIE_WITH_PARENT, _NO_NEW_RIGHTS = 1, 38
_NOBODY = 65534
_FILES = 64

_NEVER = frozenset(
    [
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "pty.spawn",
        "os.kill",
        "os.killpg",
        "signal.pthread_kill",
        "socket.connect",
        "socket.bind",
        "socket.sendto",
        "socket.sendmsg",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "os.chroot",
        "os.setxattr",
        "os.removexattr",
    ]
)
_CHANGES = frozenset(
    [
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.mkdir",
        "os.link",
        "os.symlink",
        "os.chmod",
        "os.chown",
        "os.truncate",
        "os.utime",
        "shutil.rmtree",
        "shutil.move",
        "shutil.chown",
        "tempfile.mkstemp",
        "tempfile.mkdtemp",
    ]
)
"""Events of Python's audit: what is always refused, and what is refused outside the program's folder."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def main() -> None:
    """Entry point."""
    order = json.load(sys.stdin.buffer)
    out = _streams()
    import resource  # noqa: F401 - while the process may still read it

    os.chdir(order["folder"])
    sys.dont_write_bytecode = True
    network = not _leave_network()
    root = not _leave_root(order["folder"])
    _limit(order["limits"])
    os.write(out, json.dumps([network, root]).encode() + b"\n")
    os.write(out, _run(order["source"], order["folder"], order["token"]).encode())
    os._exit(0)


def _run(source: str, folder: str, token: str) -> str:
    _refuse(os.path.realpath(folder))
    try:
        exec(compile(source, "program.py", "exec"), {})
    except BaseException as error:
        return type(error).__name__
    return token


def _streams() -> int:
    """A descriptor of standard output; the program itself has streams that lead nowhere."""
    out = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.close(nothing)
    return out


# -- what the system takes away ------------------------------------------------------------------------------


def _leave_network() -> bool:
    """Enter a namespace without a network; whether that worked."""
    if sys.platform != "linux":
        return False
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    return bool(unshare(_NEW_NETWORK) == 0 or unshare(_NEW_USERS | _NEW_NETWORK) == 0)


def _leave_root(folder: str) -> bool:
    """Give up root's rights, where Python's own files can be read without them; whether the process has none."""
    if os.geteuid() != 0 or _mapped():
        return True
    needed = [path for path in sys.path if os.path.isdir(path)]  # noqa: PTH112
    with suppress(OSError):
        os.chown(folder, _NOBODY, _NOBODY)
        os.setgroups([])
        os.setegid(_NOBODY)
        os.seteuid(_NOBODY)
        if all(os.access(path, os.R_OK | os.X_OK, effective_ids=True) for path in needed):
            os.seteuid(0)
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
            return True
    with suppress(OSError):
        os.seteuid(0)
        os.setegid(0)
    return False


def _mapped() -> bool:
    """Whether this root is an ordinary user outside its namespace."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:  # noqa: PTH123
            first = file.readline().split()
    except OSError:
        return False
    return bool(first) and first[1] != "0"


def _limit(limits: dict[str, Any]) -> None:
    import resource

    seconds = int(time.process_time()) + 1 + limits["processor_s"]
    wanted = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: limits["memory"],
        resource.RLIMIT_FSIZE: limits["file"],
        resource.RLIMIT_NOFILE: _FILES,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in wanted.items():
        hard = value + (kind == resource.RLIMIT_CPU)
        with suppress(ValueError, OSError):  # macOS has no limit of memory
            resource.setrlimit(kind, (value, hard))
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        prctl(_NO_NEW_RIGHTS, 1, 0, 0, 0)


# -- what Python refuses -------------------------------------------------------------------------------------


def _refuse(folder: str) -> None:
    """Let Python refuse what the program has no need for."""
    realpath, devnull, fspath, inside = os.path.realpath, os.devnull, os.fspath, folder + os.sep

    def is_inside(path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return True
        found = fspath(path)
        whole = realpath(found.decode(errors="surrogateescape") if isinstance(found, bytes) else found)
        return whole in (folder, devnull) or whole.startswith(inside)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _NEVER:
            raise PermissionError(f"{event} is not allowed")
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITES and not is_inside(path):
                raise PermissionError("only files in the working folder may be written")
        elif event in _CHANGES and not all(map(is_inside, arguments)):
            raise PermissionError(f"{event} is allowed in the working folder alone")

    sys.addaudithook(hook)


if __name__ == "__main__":
    main()
