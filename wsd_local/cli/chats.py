"""`wsd-local chats list|show|search|export|restore|rm`: the chats of `wsd-chat`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from wsd_local.cli import names, terminal
from wsd_local.cli.app import COMMANDS, group, in_order
from wsd_local.cli.options import Debug, Json, flag, number, option, strictly
from wsd_local.cli.tables import plain_table, print_json, print_tables
from wsd_local.errors import CancelledError, UsageError, WsdError, reason
from wsd_local.system.visible import visible
from wsd_local.units import plural

if TYPE_CHECKING:
    from datetime import datetime

    from wsd_local.store import ChatRow, Store

_NUMBER = Parameter(
    name="ID", help="Number of the chat, as `chats list` shows it.", converter=strictly, completer=names.chats
)
ChatId = Annotated[int, _NUMBER]

app = group("chats", COMMANDS["chats"][1])


@app.command(name="list")
def list_chats(
    query: Annotated[str, Parameter(help="Only chats with this in their title or messages.", show_default=False)] = "",
    /,
    *,
    deleted: Annotated[bool, flag("The chats in the bin, which are erased 30 days after they were deleted.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List chats, newest first."""
    from wsd_local.store import Store

    with Store() as store:
        found = store.chats.find(query, deleted=deleted)
    if as_json:
        print_json({"chats": [chat.as_dict() for chat in found]})
        return
    if not found:
        where = " in the bin" if deleted else ""
        terminal.note(
            f"there are no chats{where}" + (" with this" if query else "" if deleted else ": wsd-chat begins one")
        )
        return
    table = plain_table("Chats", ("id", "changed", "messages", "pair", "title"), {0, 2})
    for chat in found:
        table.add_row(str(chat.id), _day(chat.updated), str(chat.messages), chat.pair, chat.title)
    print_tables(table)


@app.command(name="show")
def show(chat_id: ChatId, /, *, as_json: Json = False, debug: Debug = False) -> None:
    """Print a chat: the branch that was shown last. With --json all that is known of it."""
    from wsd_local.store import Store

    with Store() as store:
        _existing(store, chat_id)
        text = store.export(chat_id, "json" if as_json else "markdown")
    with terminal.reader_may_leave():
        if as_json:
            terminal.json_line(json.loads(text))
        else:
            sys.stdout.write(visible(text))


@app.command(name="search")
def search(
    text: Annotated[str, Parameter(help='Beginnings of words; "in quotes" whole words in this order.')],
    /,
    *,
    limit: Annotated[int, number("Messages at most.")] = 50,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Find messages, best first."""
    from rich.text import Text

    from wsd_local.store import Store

    if not text.strip():
        raise UsageError("there is nothing to search for: give a word")
    if limit < 1:
        raise UsageError(f"limit is {limit}: it counts messages and must be at least 1")
    with Store() as store:
        found = store.search(text, limit)
    if as_json:
        print_json({"hits": [hit.as_dict() for hit in found]})
        return
    if not found:
        terminal.note("nothing was found")
        return
    table = plain_table("Messages", ("chat", "message", "time", "by", "text"), {0, 1})
    for hit in found:
        snippet = Text(visible(hit.snippet))
        for start, end in hit.marks:
            snippet.stylize("bold underline", start, end)
        table.add_row(str(hit.chat), str(hit.message), _day(hit.created), hit.role, snippet)
    print_tables(table)


@app.command(name="export")
def export(
    chat_id: Annotated[int | None, _NUMBER] = None,
    /,
    *,
    every: Annotated[bool, flag("All chats.", "--all")] = False,
    form: Annotated[
        Literal["markdown", "json"],
        option("markdown is to be read, json has every field.", "--format", converter=strictly),
    ] = "markdown",
    branches: Annotated[bool, flag("All branches, and not only the one that was shown last.")] = False,
    output: Annotated[Path | None, option("File, instead of standard output.", "--output", "-o")] = None,
    debug: Debug = False,
) -> None:
    """Write a chat, or with --all every chat, as Markdown or JSON. The file is readable by you alone."""
    from wsd_local.store import Store

    if (chat_id is None) != every:
        raise UsageError("name the chat by its number, or give --all")
    with Store() as store:
        chats = [_existing(store, chat_id)] if chat_id is not None else store.chats.find()
        texts = [store.export(chat.id, form, all_branches=branches) for chat in chats]
    if not every:
        text = texts[0]
    elif form == "json":
        text = json.dumps({"chats": [json.loads(text) for text in texts]}, ensure_ascii=False) + "\n"
    else:
        text = "\n---\n\n".join(texts)
    if output is None:
        with terminal.reader_may_leave():
            if form == "json":
                terminal.json_line(json.loads(text))
            else:
                terminal.write(text)
        return
    from wsd_local.files import check_file, write_text

    try:
        check_file(output)
        write_text(output, text, private=True)
    except OSError as error:
        raise WsdError(f"{output}: cannot be written: {reason(error)}") from error


@app.command(name="restore")
def restore(chat_id: ChatId, /, *, debug: Debug = False) -> None:
    """Take a chat out of the bin; `chats list --deleted` shows what is in it."""
    from wsd_local.store import Store

    with Store() as store:
        chat = store.chats.get(chat_id)
        if chat.deleted is None:
            raise UsageError(f"chat {chat_id} is not in the bin")
        store.chats.restore(chat_id)
    terminal.line(f"chat {chat_id} ({chat.title or 'untitled'}): restored")


@app.command(name="rm")
def rm(
    chat_id: ChatId,
    /,
    *,
    yes: Annotated[bool, flag("Do not ask.", "--yes", "-y")] = False,
    debug: Debug = False,
) -> None:
    """Delete a chat for good: nothing brings it back.

    It is overwritten in chats.db, and the database's log is emptied. Exports, backups and snapshots keep their copies.
    """
    from wsd_local.store import Store

    with Store() as store:
        chat = store.chats.get(chat_id)
        what = f"chat {chat_id} ({chat.title or 'untitled'}, {plural(chat.messages, 'message')})"
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError(f"{what} would be deleted; confirm with --yes")
            if not terminal.confirmed(f"Delete {what}?"):
                raise CancelledError("not confirmed")
        swept = store.chats.erase(chat_id)
    terminal.line(f"{what}: deleted")
    if not swept:
        terminal.message("until another program has read the chats, their log still holds what was deleted")


in_order(app)

# -- printing -------------------------------------------------------------------------------------------------


def _existing(store: Store, chat_id: int) -> ChatRow:
    chat = store.chats.get(chat_id)
    if chat.deleted is not None:
        raise UsageError(f"chat {chat_id} is in the bin: take it out with: wsd-local chats restore {chat_id}")
    return chat


def _day(time: datetime) -> str:
    return f"{time.astimezone():%Y-%m-%d %H:%M}"
