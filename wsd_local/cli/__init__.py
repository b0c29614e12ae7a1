"""The command line: thin. Commands parse, call and print; the work is elsewhere.

Contract: standard output carries the answer and nothing else; notes, progress and errors go to standard error. Every
error is one line (`--debug` shows the traceback). Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 model missing or
unusable, 4 does not fit in memory or context, 5 some records failed, 130 interrupted, 128 + n ended by signal n. A
server, or a worker, that SIGINT or SIGTERM ends has 0.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from wsd_local.cli import terminal
from wsd_local.errors import CancelledError, WsdError
from wsd_local.system.interrupt import Interrupted, signals_raise

if TYPE_CHECKING:
    from cyclopts import App


def main() -> None:
    """Entry point of `wsd-local`."""

    def made() -> App:
        from wsd_local.cli.app import command_line

        return command_line()

    _run(made, "wsd-local")


def chat_main() -> None:
    """Entry point of `wsd-chat`, the same as `wsd-local chat`."""
    from wsd_chat.terminal.flow_control import no_flow_control

    def made() -> App:
        from wsd_local.cli.app import chat_line

        return chat_line()

    with no_flow_control():  # as early as possible: Ctrl+Q may be pressed while the program starts
        _run(made, "wsd-chat")


def _run(made: Callable[[], App], name: str) -> None:
    """Run the command line that `made` makes; every error is one line, with its exit code."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    terminal.prepare()
    try:
        with signals_raise():
            code = _exit_code(made(), name, debug="--debug" in sys.argv[1:])
    except Interrupted as error:
        code = _code_of(error)
    sys.exit(code)


def _exit_code(app: App, name: str, *, debug: bool) -> int:
    from cyclopts import CycloptsError

    try:
        with terminal.reader_may_leave():  # Python would flush when it exits, and complain in its own words
            code = app(sys.argv[1:], exit_on_error=False, print_error=False, result_action="return_value")
        return int(code or 0)
    except SystemExit as error:
        has_left = isinstance(error.__context__, BrokenPipeError)  # the reader, while Rich wrote a help page
        return 0 if has_left else int(error.code or 0)
    except CancelledError as error:
        return error.exit_code
    except KeyboardInterrupt:
        return CancelledError.exit_code
    except WsdError as error:
        return _complain(name, error, error.exit_code, debug)
    except CycloptsError as error:
        from wsd_local.cli.usage import explain

        return _complain(name, explain(error, name), 2, debug)
    except OSError as error:
        return _complain(name, terminal.describe(error), 1, debug)
    except Exception as error:
        return _complain(name, f"internal error: {error!r}; --debug shows where", 1, debug)


def _code_of(signalled: Interrupted) -> int:
    """The exit code after a signal; one that ends a server before it serves ends it in order too."""
    serves = sys.argv[1:2] in (["serve"], ["rpc-worker"]) and not {"--install-service", "--uninstall-service"} & set(
        sys.argv
    )
    return 0 if serves and signalled.number in (signal.SIGINT, signal.SIGTERM) else signalled.exit_code


def _complain(name: str, error: object, code: int, debug: bool) -> int:
    if debug:
        import traceback

        terminal.block(traceback.format_exc())
    terminal.note(f"{name}: " + " ".join(str(error).split()))
    return code
