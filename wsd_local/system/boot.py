"""The start of every child process of this package, as `python -I boot.py STDIN FOLDERS MODULE ARGUMENTS...`.

Contract: runs MODULE as `python -m` does, with `wsd_local` from the folder above this file's and other packages from
FOLDERS (joined by `os.pathsep`) and the interpreter's own. The working folder and the user's PYTHON... variables play
no part. With STDIN `follow`, standard input is empty and the process ends, with all that it has started, when the other
end of its pipe is closed, as it is when the parent is gone; with `talk` it is MODULE's. Imports the standard library
alone.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys


def _find_packages(folders: list[str]) -> None:
    """Let imports search the standard library, then `folders`, then the interpreter's other folders."""
    given = [folder for folder in folders if folder]
    own = [entry for entry in sys.path if entry not in given]
    first = next((i for i, entry in enumerate(own) if entry.endswith("-packages")), len(own))
    package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120 - importing pathlib takes long
    sys.path[:] = [*own[:first], *given, *own[first:], os.path.dirname(package)]  # noqa: PTH120
    spec = importlib.util.spec_from_file_location("wsd_local", os.path.join(package, "__init__.py"))  # noqa: PTH118
    assert spec is not None and spec.loader is not None
    sys.modules["wsd_local"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def _follow_parent() -> None:
    """Empty standard input, and end when the pipe that it was is closed."""
    import signal
    import threading

    line = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def wait() -> None:
        while os.read(line, 1):
            pass
        if sys.platform != "win32":
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """Entry point."""
    _, stdin, folders, module, *arguments = sys.argv
    _find_packages(folders.split(os.pathsep))
    if stdin == "follow":
        _follow_parent()
    sys.argv[:] = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
