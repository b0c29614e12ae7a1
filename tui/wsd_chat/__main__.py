"""Entry point of `wsd-chat`, the same as `wsd-local chat`.

Contract: nothing more is imported from the working folder, which `python -m` puts in front of all others.
"""

import os
import sys


def main() -> None:
    """Chat in the terminal."""
    import typer

    from wsd_local.cli import run_app
    from wsd_local.cli.chat import chat

    names = {"help_option_names": ["-h", "--help"]}
    app = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=names)
    app.command()(chat)
    run_app(app, "wsd-chat")


if __name__ == "__main__":
    if sys.path[:1] in ([""], [os.getcwd()]):  # noqa: PTH109 - pathlib is not imported yet
        del sys.path[0]
    main()
