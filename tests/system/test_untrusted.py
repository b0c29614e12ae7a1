"""Untrusted programs: what they return, what they may use, and what they cannot reach."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest

from wsd_local.system.untrusted import ProgramLimits, execute

SHORT = ProgramLimits(processor_s=1, elapsed_s=4)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("", ""),
        ("assert sorted([2, 1]) == [1, 2]", ""),
        ("open('note', 'w').write('x'); assert open('note').read() == 'x'", ""),
        ("import os; assert os.listdir('.') == []", ""),
        ("if __name__ == '__main__': raise ValueError", ""),
        ("assert 1 == 2", "AssertionError"),
        ("def f(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("def f(): return f()\nf()", "RecursionError"),
        ("input()", "EOFError"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import os; os._exit(0)", "ended"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "PermissionError"),
        ("x = 'a' * (1 << 40)", "MemoryError"),
        ("open('big', 'w').write('x' * (1 << 22))", "OSError"),
        ("keep = [open('note', 'w') for _ in range(999)]", "OSError"),
        ("import os; os.fork()", "PermissionError"),
        ("import os; os.system('true')", "PermissionError"),
        ("import subprocess; subprocess.run(['true'])", "PermissionError"),
    ],
)
def test_a_program_succeeds_only_by_coming_to_its_end(source: str, why: str) -> None:
    found = execute(source)
    assert (found.succeeded, found.why) == (not why, why)


@pytest.mark.parametrize(
    "source",
    [
        "while True: pass",
        "import time; time.sleep(1000)",
        "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        "while True:\n  try:\n    while True: pass\n  except BaseException: pass",
    ],
)
def test_a_program_that_does_not_end_is_ended(source: str) -> None:
    found = execute(source, SHORT)
    assert (found.succeeded, found.why) == (False, "time")


def test_a_program_changes_no_file_outside_its_folder(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("whole")
    name = str(victim)
    for source in (
        f"open({name!r}, 'w')",
        f"open({name!r}, 'a').write('x')",
        f"import os; os.remove({name!r})",
        f"import os; os.rename({name!r}, 'mine')",
        f"import os; os.truncate({name!r}, 0)",
        f"import os; os.open({name!r}, os.O_WRONLY | os.O_TRUNC)",
        f"import shutil; shutil.rmtree({str(tmp_path)!r})",
        f"import pathlib; pathlib.Path({name!r}).unlink()",
        f"import os; os.symlink({name!r}, 'link'); open('link', 'w')",
        f"import os; os.mkdir({str(tmp_path / 'new')!r})",
    ):
        assert execute(source).why in ("PermissionError", "FileNotFoundError"), source
    assert victim.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [victim]


def test_a_program_reaches_no_port_of_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = execute(f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)")
    assert not found.succeeded


def test_a_program_has_no_secrets_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hush")
    before = set(Path(tempfile.gettempdir()).glob("wsd-program-*"))
    assert execute("import os; assert 'HF_TOKEN' not in os.environ; open('a', 'w')").succeeded
    assert set(Path(tempfile.gettempdir()).glob("wsd-program-*")) <= before


def test_what_a_program_prints_is_not_its_verdict() -> None:
    assert not execute("print('ok ' * 100000)\nraise ValueError").succeeded
    assert execute("print('x' * 10_000_000)").succeeded
