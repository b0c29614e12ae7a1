"""Errors that a person can act on.

Contract: every error the package raises on purpose is a `WsdError`. Its text is one line that says what was
wrong, where, and what to do; `exit_code` is what the command line returns for it.
"""

from __future__ import annotations


class WsdError(Exception):
    """Something failed that the caller can read about in one line."""

    exit_code = 1


class UsageError(WsdError):
    """An argument, option, message list or input text that cannot be meant."""

    exit_code = 2


class ModelError(WsdError):
    """A model file that is missing, unreadable, damaged, or of the wrong kind."""

    exit_code = 3


class FitError(WsdError):
    """Something that does not fit into memory or into a context."""

    exit_code = 4


class CancelledError(WsdError):
    """Work was stopped between or inside two evaluations; what was shown is kept by the caller."""

    exit_code = 130
