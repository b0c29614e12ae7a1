"""Programs that nobody has read, executed one by one under limits: the code that a model wrote.

Contract: the program runs in a child process of its own, in an empty folder that is removed afterwards, without
standard input, and its output is discarded. Processor time, elapsed time, memory, size and number of files, and new
processes are limited by the system. It has no network where the system can take it away (Linux namespaces), and no
root's rights where the process can give them up. Python itself refuses it to write outside its folder, to start
programs and to open connections. That protects against programs that do harm by accident, and is no prison for one
that is written to break out: who expects that runs all of it in a virtual machine.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass

from wsd_local.errors import UsageError, WsdError, reason
from wsd_local.system import child

_MODULE = "wsd_local.system.untrusted_child"
_MOST_OUTPUT = 4096
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True, slots=True)
class ProgramLimits:
    """What one program may use: seconds, and bytes."""

    processor_s: int = 3
    elapsed_s: float = 15.0
    memory: int = 1 << 30
    file: int = 1 << 20


USUAL = ProgramLimits()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended.

    `succeeded`: it ran to its end without an exception. `why`: the exception's name, or `time`, or `ended` if the
    process was gone before the program's end. `network` and `processes`: whether the system lets it have them.
    """

    succeeded: bool
    why: str
    network: bool
    processes: bool


def require_limits() -> None:
    """Raise `UsageError` on a system that cannot limit a program."""
    if sys.platform == "win32":
        raise UsageError("programs that models wrote are not executed on Windows, which cannot limit them: use WSL")


def execute(source: str, limits: ProgramLimits = USUAL) -> Outcome:
    """Run a program to its end, or to one of its limits.

    Raises:
        UsageError: the system cannot limit a program.
        WsdError: no process can be started, or it cannot be limited.
    """
    require_limits()
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="wsd-program-") as folder, tempfile.TemporaryFile() as out:
        order = {"source": source, "folder": folder, "token": token, "limits": asdict(limits)}
        try:
            process = child.start(
                [_MODULE], stdin=subprocess.PIPE, stdout=out, stderr=subprocess.DEVNULL, also=_ONE_THREAD
            )
        except OSError as error:
            raise WsdError(f"a program cannot be started: {reason(error)}") from error
        late = False
        try:
            process.communicate(json.dumps(order).encode(), timeout=limits.elapsed_s)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            child.end(process)
        lines = child.text_of(out, _MOST_OUTPUT).split("\n")
        code = process.returncode
    return _outcome(lines, token, late or code in (-24, -9))  # SIGXCPU, and SIGKILL at the hard limit


def _outcome(lines: list[str], token: str, late: bool) -> Outcome:
    try:
        network, processes = json.loads(lines[0])
    except ValueError:
        raise WsdError("a program could not be put under limits, and was not executed") from None
    said = lines[1] if len(lines) > 1 else ""
    succeeded = said == token
    why = "" if succeeded else "time" if late else said or "ended"
    return Outcome(succeeded, why[:100], bool(network), bool(processes))
