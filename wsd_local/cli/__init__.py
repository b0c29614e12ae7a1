"""The command line: thin. Commands parse, call and print; the work is elsewhere.

Contract: standard output carries the answer and nothing else; notes, progress and errors go to standard error. Every
error is one line (`--debug` shows the traceback). Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 model missing or
unusable, 4 does not fit in memory or context, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from wsd_local import __version__
from wsd_local.cli import evaluate, run
from wsd_local.errors import WsdError

EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="wsd-local",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("chat")(run.chat)
app.add_typer(evaluate.app, name="eval")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wsd-local {__version__}")
        raise typer.Exit


@app.callback(
    epilog="Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 model missing or unusable, "
    "4 does not fit in memory or context, 130 interrupted."
)
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Aligned answers from a large base model on this machine.

    A small aligned model writes the opening of every reply; the base model takes over where it has become confident
    in what it reads (Weak-to-Strong Decoding).
    """


def main() -> None:
    """Entry point of `wsd-local`."""
    debug = "--debug" in sys.argv[1:]
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8")
    try:
        code = app(standalone_mode=False)
    except WsdError as error:
        code = _complain(error, error.exit_code, debug)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except typer.Abort:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        code = 0
    except OSError as error:
        code = _complain(error, 1, debug)
    except Exception as error:
        if debug or not hasattr(error, "format_message"):
            raise
        code = _complain(f"{error.format_message()} See wsd-local --help.", 2, debug)
    _leave(code if isinstance(code, int) else 0)


def _complain(error: object, code: int, debug: bool) -> int:
    if debug and isinstance(error, BaseException):
        raise error
    print("wsd-local:", " ".join(str(error).split()), file=sys.stderr)
    return code


def _leave(code: int) -> None:
    """Exit; a reader that has closed the pipe must not become an error at the last flush."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
