"""The command line: thin. Commands parse, call and print; the work is elsewhere.

Contract: standard output carries the answer and nothing else; notes, progress and errors go to standard error. Every
error is one line (`--debug` shows the traceback). Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 model missing or
unusable, 4 does not fit in memory or context, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from typing import Annotated

import typer

from wsd_local import __version__
from wsd_local.cli import bench, chat, chats, configuration, doctor, evaluate, fit, models, run
from wsd_local.cli.interrupt import EXIT_INTERRUPTED
from wsd_local.errors import CancelledError, WsdError

app = typer.Typer(
    name="wsd-local",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("chat")(chat.chat)
app.add_typer(chats.app, name="chats")
app.add_typer(models.app, name="models")
app.command("fit")(fit.fit)
app.add_typer(configuration.app, name="config")
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)
app.add_typer(evaluate.app, name="eval")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wsd-local {__version__}")
        raise typer.Exit


@app.callback(
    invoke_without_command=True,
    epilog="Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 model missing or unusable, "
    "4 does not fit in memory or context, 130 interrupted.",
)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Aligned answers from a large base model on this machine.

    A small aligned model writes the opening of every reply; the base model takes over where it has become confident
    in what it reads (Weak-to-Strong Decoding).
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Entry point of `wsd-local`."""
    run_app(app, "wsd-local")


def run_app(commands: typer.Typer, name: str) -> None:
    """Run a command line; every error is one line, with its exit code."""
    debug = "--debug" in sys.argv[1:]
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8")
    try:
        code = commands(standalone_mode=False, prog_name=name) or 0
    except (CancelledError, KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except WsdError as error:
        code = _complain(name, error, error.exit_code, debug)
    except OSError as error:
        code = _complain(name, error, 1, debug)
    except Exception as error:
        if hasattr(error, "format_message"):
            code = _complain(name, f"{error.format_message().rstrip('.')}. See {name} --help.", 2, debug)
        else:
            code = _complain(name, f"internal error: {error!r}; --debug shows where", 1, debug)
    sys.exit(code)


def _complain(name: str, error: object, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"{name}:", " ".join(str(error).split()), file=sys.stderr)
    return code
