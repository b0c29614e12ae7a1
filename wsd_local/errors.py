"""Errors that a person can act on.

Contract: every error the package raises on purpose is a `WsdError`. Its text is one line: what was wrong,
where, and what to do; `exit_code` is what the command line returns for it.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Sequence


class WsdError(Exception):
    """Something failed that the caller can read about in one line.

    Args:
        message: that line.
        about: the setting, or the part of the input, that is wrong, where that is one.
    """

    exit_code = 1

    def __init__(self, message: str = "", *, about: str | None = None) -> None:
        super().__init__(message)
        self.about = about


class UsageError(WsdError):
    """An argument, option, message list or input text that is not valid."""

    exit_code = 2


class ModelError(WsdError):
    """A model file that is missing, unreadable, damaged, or of the wrong kind."""

    exit_code = 3


class RefusedError(ModelError):
    """A conversation that a model's chat template refuses; `reason` is the message without the template's name."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class FitError(WsdError):
    """Something that does not fit into memory or into a context."""

    exit_code = 4


class DeadEndError(WsdError):
    """A constraint demands what the model's vocabulary cannot write."""


class WorkerError(WsdError):
    """A worker on another machine that cannot be reached, does not answer as it should, or was lost."""


class BusyError(WsdError):
    """A pair or a conversation that another answer uses, where waiting was not wanted or could never end."""


def room_advice(n_ctx: int, n_ctx_train: int) -> str:
    """What helps where a context of `n_ctx` tokens is full, for a model that was trained for `n_ctx_train`."""
    if n_ctx < n_ctx_train:
        return f"shorten it, or raise --ctx (this model can take {n_ctx_train} tokens)"
    return "shorten it: that is all this model was trained for"


class CancelledError(WsdError):
    """Work was stopped between or inside two evaluations; what was shown is kept by the caller."""

    exit_code = 130


_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "the system does not permit it",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder",
    errno.EEXIST: "it exists already",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "its links lead in a circle",
    errno.EMFILE: "this program has too many files open",
    errno.ENFILE: "the system has too many files open",
    errno.EFBIG: "the file would be larger than is allowed here",
    errno.EIO: "the device reported an input/output error",
    errno.ENOMEM: "there is not enough memory",
    errno.EBUSY: "it is in use",
    errno.ETXTBSY: "it is in use",
}


def reason(error: OSError) -> str:
    """Why the system refused something, in words and without a number; the file's name is not part of it."""
    if error.errno in _REASONS:
        return _REASONS[error.errno]
    return error.strerror or str(error) or type(error).__name__


def message_of(error: WsdError | OSError) -> str:
    """One line about an error of this package or of the system."""
    return os_message(error) if isinstance(error, OSError) else str(error)


def os_message(error: OSError) -> str:
    """A system error as one line: the file, if there is one, and the reason."""
    names = [str(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    return ": ".join([" -> ".join(names), reason(error)] if names else [reason(error)])


def short(value: object) -> str:
    """A wrong value as a message shows it: as Python writes it, cut if it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def cut(text: str, longest: int) -> str:
    """A text of at most `longest` characters, with an ellipsis where the rest was."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def printable(text: str) -> str:
    """Text out of a file, with U+FFFD for characters that are not printable."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)


def nearest(name: str, known: Sequence[str]) -> str:
    """A suggestion to append to an error message; none where nothing is known."""
    if not known:
        return ""
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
