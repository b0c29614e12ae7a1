"""The commands of `wsd-local`, and how commands are made.

Contract: a command's module is imported when the command is used. A command returns its exit code, or None for 0. Of an
option that is given more than once the last value counts, unless it takes several.
"""

from __future__ import annotations

from typing import Any

from cyclopts import App, Group, Parameter

from wsd_local.cli.help import Help
from wsd_local.version import __version__

COMMANDS = {
    "run": ("run:app", "Answer a prompt (argument, --file, or standard input), or a data set (--input)."),
    "chat": ("chat:chat", "Chat in the terminal."),
    "chats": (
        "chats:app",
        """Chats: list, show, search, export, restore, rm.

        What was written in wsd-chat is kept on this machine, in chats.db in the data folder (WSD_LOCAL_DATA). Chats off
        the record are in no file, and not here.""",
    ),
    "serve": (
        "serve:serve",
        """Serve pairs over HTTP to clients of OpenAI's, Anthropic's and Ollama's protocols, with a page at /.

        A pair is three models to clients: PAIR (Weak-to-Strong Decoding), PAIR:base and PAIR:draft. The first signal
        that asks the server to end ends it in order (exit code 0), a second one at once; SIGHUP reloads the
        configuration.""",
    ),
    "rpc-worker": (
        "rpc_worker:rpc_worker",
        """Lend this machine's memory and processors to pairs on other machines (--rpc).

        Its accelerators, or its CPU where it has none, over llama.cpp's RPC. One client at a time, with the same
        llama-cpp-python. Ends with the first signal that asks it to (exit code 0).""",
    ),
    "models": (
        "models:app",
        """Models: list, show, pull, import, convert, quantize, rm.

        Models on this machine: find, fetch, convert, inspect, remove.""",
    ),
    "fit": (
        "fit:fit",
        """Show whether a pair fits, and where its layers go.

        Reads headers only, and estimates from the catalog what is not here yet; nothing is loaded or fetched.""",
    ),
    "cache": (
        "cache:app",
        """Kept prompts: list, clear.

        What the models have read of long prompts is kept in a folder (--prompt-cache of run and serve), so that a later
        process answers another question about the same text at once.""",
    ),
    "config": (
        "configuration:app",
        """Configuration: path, show.

        A default pair, settings, and pairs of your own, in config.toml. The environment variables WSD_LOCAL_PAIR and
        WSD_LOCAL_<SETTING> override the file, and options override both.""",
    ),
    "check-pair": (
        "check_pair:check_pair",
        """Examine whether two models make a good pair: a verdict, and for each symptom its cause and what to do.

        Answers a dozen questions of its own, and lets both models read good answers to them; a minute or two for small
        models on a CPU. Exit code 1 if a fault was found (not a pair), else 0.""",
    ),
    "bench": (
        "bench:bench",
        """Measure how fast a pair is on this machine: its parts, whole replies, and the base alone for comparison.

        Takes some minutes for models of usual size on a CPU. Nothing else should run meanwhile.""",
    ),
    "tune": (
        "tune:tune",
        """Find the settings with which a pair is fastest on this machine.

        The draft's quantisation, threads, steps, attention, proposals: all take turns, and what lies within noise is no
        recommendation. The best is confirmed by whole replies. Five minutes; other programs disturb it, and it reports
        how much.""",
    ),
    "calibrate": (
        "calibrate:calibrate",
        """Find the threshold and the window that suit a pair, by one recording of its drafts.

        Each prompt is drafted once to its end; the base reads the whole draft, and writes a little of its own from each
        possible switch point. What each setting would have done is computed from these records, which are kept: the
        same command continues a run that was stopped.""",
    ),
    "train": (
        "train:app",
        """Train a draft model: prepare, draft, check.

        From a preference set (pairs of a better and a worse reply) to what trainers read, or to a draft.""",
    ),
    "doctor": (
        "doctor:doctor",
        """Show what is installed and whether it works.

        Text for a bug report: versions, back ends, devices, folders, models, and a reply of the embedded pair.""",
    ),
    "eval": (
        "evaluate:app",
        "Measure how well a pair answers, and compare runs: all, demo, report, tax, safety, mechanism, sweep, time, "
        "judge, reward.",
    ),
}
"""Where each command is, and its help."""

_OPTIONS = Group("Options", sort_key=-1)
_EXIT_CODES = (
    "Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 model missing or unusable, 4 does not fit in memory or context, "
    "5 some records failed, 130 interrupted, 128 + n ended by signal n."
)


def command_line() -> App:
    """`wsd-local` with all its commands."""
    app = group(
        "wsd-local",
        "Aligned answers from a large base model on this machine.\n\n"
        "A small aligned model writes the opening of every reply; the base model takes over where it has become "
        "confident in what it reads (Weak-to-Strong Decoding).",
        version=f"wsd-local {__version__}",
        version_flags=["--version"],
        help_epilogue=_EXIT_CODES,
    )
    _say_what_flags_do(app)
    app["--version"].group, app["--version"].help = _OPTIONS, "Print the version and exit."
    for place, (name, (path, text)) in enumerate(COMMANDS.items()):
        more: dict[str, Any] = {} if path.endswith(":app") else {"help_epilogue": ""}
        app.command(f"wsd_local.cli.{path}", name=name, help=_paragraphs(text), sort_key=place, **more)
    return app


def chat_line() -> App:
    """`wsd-chat`: the command `chat` alone."""
    from wsd_local.cli.chat import chat

    app = group("wsd-chat", COMMANDS["chat"][1], usage="Usage: wsd-chat [OPTIONS]")
    app.default(chat)
    _say_what_flags_do(app)
    return app


def _say_what_flags_do(app: App) -> None:
    app["--help"].group, app["--help"].help = _OPTIONS, "Show this help and exit."
    app.register_install_completion_command(
        group=_OPTIONS, help="Install completion of commands, options and names for bash, zsh or fish (--shell)."
    )


def group(name: str, help: str, **more: Any) -> App:
    """A command that holds others."""
    return App(
        name=name,
        help=_paragraphs(help),
        help_format="plaintext",
        help_formatter=Help(),
        default_parameter=Parameter(negative=(), allow_repeating=True),
        group_parameters=_OPTIONS,
        **{"version_flags": [], "help_epilogue": "", **more},
    )


def in_order(app: App) -> None:
    """Let `--help` list the commands of a group in the order in which they were added, and not by their names."""
    for place, name in enumerate(name for name in app if not name.startswith("-")):
        app[name].sort_key = place


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
