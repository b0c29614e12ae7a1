"""Every key and every slash command, declared once: bindings, the help screen and the palette are made from this."""

from __future__ import annotations

from dataclasses import dataclass

from textual.binding import Binding


@dataclass(frozen=True, slots=True)
class Command:
    """Something that can be done: by key, by slash command, from the palette."""

    name: str
    keys: str
    action: str
    help: str
    slash: str = ""
    short: str = ""
    """Its name in the footer, which must fit into 60 columns; empty: it is not in the footer."""


COMMANDS = (
    Command("stop", "escape", "stop", "stop the reply and keep what is written"),
    Command("new chat", "ctrl+n", "new_chat", "begin a new chat", "new", short="new"),
    Command("chats", "ctrl+b", "chats", "show or hide the list of chats", "chats", short="chats"),
    Command("search", "alt+f,ctrl+f", "search", "search all chats", "search"),
    Command("help", "f1", "help", "this help", "help", short="help"),
    Command("switch view", "f2", "switch_view", "token by token: probabilities, window, threshold", "why", short="why"),
    Command("hand over", "f3", "hand_over", "let the base continue from here, now", "over", short="base"),
    Command("keep drafting", "f4", "keep_drafting", "let the draft write to its end", "keep"),
    Command("threshold up", "alt+up", "slide(0.05)", "a higher threshold, also for the reply that is being drafted"),
    Command("threshold down", "alt+down", "slide(-0.05)", "a lower one: the base takes over earlier"),
    Command("regenerate", "f5", "regenerate", "answer the last question again on a new branch", "again", short="again"),
    Command("continue", "f6", "continue", "continue a reply that was stopped, or cut at its length limit", "continue"),
    Command("edit", "f7", "edit", "edit your last (or the chosen) message and send it on a new branch", "edit"),
    Command("models", "f8", "models", "choose a pair, fetch one, or choose two models", "models", short="models"),
    Command("settings", "f9", "settings", "all settings of a reply, system prompt, presets", "settings"),
    Command("compare", "alt+v", "compare", "base alone, draft alone and both, side by side", "compare"),
    Command("branch left", "alt+left", "branch(-1)", "previous branch of the chat, or of the chosen message", "left"),
    Command("branch right", "alt+right", "branch(1)", "next branch; either key goes through all of them", "right"),
    Command("copy", "alt+c", "copy", "copy the chosen message, else the last reply", "copy"),
    Command("copy code", "alt+k", "copy_code", "copy the last code block of that message", "code"),
    Command("export", "ctrl+s", "export", "write the chat to a Markdown or JSON file", "export"),
    Command("rename", "alt+r", "rename", "rename the chat", "rename"),
    Command("delete", "alt+x", "delete", "delete the chat; Alt+Z restores it", "delete"),
    Command("undo delete", "alt+z", "undo", "restore the chat that was deleted last", "undo"),
    Command("off the record", "", "off_record", "begin a chat that is kept in no file", "offrecord"),
    Command("log", "f12", "log", "what llama.cpp and the program have logged", "log"),
    Command("quit", "ctrl+q", "quit", "quit", "quit"),
)


def bindings() -> list[Binding]:
    """Bindings of the chat screen."""
    return [
        Binding(
            command.keys,
            command.action,
            command.short or command.name,
            show=bool(command.short),
            priority=command.keys != "escape",
        )
        for command in COMMANDS
        if command.keys
    ]


def slash(name: str) -> Command | None:
    """The command that `/name` means; a beginning is enough where it is unambiguous."""
    exact = [command for command in COMMANDS if command.slash == name]
    begun = [command for command in COMMANDS if command.slash and command.slash.startswith(name)]
    return exact[0] if exact else begun[0] if len(begun) == 1 else None
