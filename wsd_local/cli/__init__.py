"""The command line: thin. Commands parse, call and print; the work is elsewhere.

Contract: standard output carries the answer and nothing else; notes, progress and errors go to standard error. Every
error is one line (`--debug` shows the traceback). Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 model missing or
unusable, 4 does not fit in memory or context, 5 some records failed, 130 interrupted, 128 + n ended by signal n.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from wsd_local.cli import terminal
from wsd_local.errors import CancelledError, WsdError
from wsd_local.system.interrupt import Interrupted, signals_raise
from wsd_local.version import __version__

COMMANDS = {
    "run": ("run", "Answer a prompt (argument, --file, or standard input), or a data set (--input)."),
    "chat": ("chat", "Chat in the terminal."),
    "chats": ("chats", "Chats: list, show, search, export, rm."),
    "models": ("models", "Models: list, show, pull, import, convert, quantize, rm."),
    "fit": ("fit", "Show whether a pair fits, and where its layers go."),
    "config": ("configuration", "Configuration: path, show."),
    "bench": ("bench", "Measure how fast a pair is on this machine."),
    "doctor": ("doctor", "Tell what is installed and whether it works."),
    "eval": ("evaluate", "Measure how well a pair answers, and compare runs: demo, report."),
}
"""Each command's module, which has the command under the module's name or several in `app`, and what it does."""


class _Commands(TyperGroup):
    """Commands whose modules are imported, and whose options are made, when they are asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"wsd_local.cli.{COMMANDS[cmd_name][0]}")
        several = getattr(module, "app", None)
        if several is None:
            several = typer.Typer(add_completion=False, rich_markup_mode=None)
            several.command(cmd_name)(getattr(module, cmd_name))
        command = typer.main.get_command(several)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


app = typer.Typer(
    name="wsd-local",
    cls=_Commands,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wsd-local {__version__}")
        raise typer.Exit


@app.callback(
    invoke_without_command=True,
    epilog="Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 model missing or unusable, "
    "4 does not fit in memory or context, 5 some records failed, 130 interrupted, 128 + n ended by signal n.",
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
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    terminal.prepare()
    with signals_raise():
        code = _exit_code(commands, name, debug="--debug" in sys.argv[1:])
    sys.exit(code)


def _exit_code(commands: typer.Typer, name: str, *, debug: bool) -> int:
    try:
        code = commands(standalone_mode=False, prog_name=name)
        with terminal.reader_may_leave():  # Python would flush when it exits, and complain in its own words
            return int(code or 0)
    except typer.Exit as error:
        return error.exit_code
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # the reader left while Typer wrote
            return 0
        raise
    except (CancelledError, Interrupted) as error:
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return CancelledError.exit_code
    except WsdError as error:
        return _complain(name, error, error.exit_code, debug)
    except OSError as error:
        return _complain(name, terminal.told(error), 1, debug)
    except Exception as error:
        if hasattr(error, "format_message"):
            command = getattr(getattr(error, "ctx", None), "command_path", name)
            return _complain(name, f"{error.format_message().rstrip('.')}. See {command} --help.", 2, debug)
        return _complain(name, f"internal error: {error!r}; --debug shows where", 1, debug)


def _complain(name: str, error: object, code: int, debug: bool) -> int:
    if debug:
        terminal.block(traceback.format_exc())
    terminal.note(f"{name}: " + " ".join(str(error).split()))
    return code
