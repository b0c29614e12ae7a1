"""Constraints of replies, compiled once for as long as their models stay loaded.

Contract: safe from any thread; while one constraint is compiled, others can be. The newest `KEPT` are kept: clients of
a server may bring any number of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from wsd_local.constraints.compiling import compiled
from wsd_local.constraints.constraint import Constraint, unknown_keywords
from wsd_local.constraints.matching import Matcher, Matching
from wsd_local.errors import CancelledError, UsageError
from wsd_local.llama import Model
from wsd_local.system.child import Waiting

KEPT = 128
"""Compiled constraints, and notices that were given."""


class Grammars:
    """Compiled constraints, and those whose notice was given."""

    def __init__(self) -> None:
        self._compiled: dict[Constraint, str] = {}
        self._matchings: dict[Model, Matching] = {}
        self._noticed: dict[Constraint, None] = {}
        self._lock = threading.Lock()

    def compile(self, constraint: Constraint, waiting: Waiting | None = None) -> str:
        """The constraint in llguidance's form; compiled once. `waiting` is called meanwhile; returning False stops it.

        Raises:
            UsageError: the constraint is invalid or not supported.
            CancelledError: `waiting` returned False.
        """
        if (known := self._compiled.get(constraint)) is not None:
            return known
        made = compiled(constraint, waiting)
        with self._lock:
            self._compiled[constraint] = made
            _forget_oldest(self._compiled)
        return made

    def matcher(self, constraint: Constraint, model: Model, cancelled: Callable[[], bool]) -> Matcher:
        """A matcher at the beginning of a text that `model` writes under the constraint.

        Raises:
            UsageError: the constraint is invalid or not supported.
            CancelledError: `cancelled` returned True.
        """
        grammar = self.compile(constraint, lambda: not cancelled())

        def check() -> None:
            if cancelled():
                raise CancelledError("stopped while a constraint was prepared")

        with self._lock:
            if model not in self._matchings:
                self._matchings[model] = Matching(model, check)
            try:
                return self._matchings[model].matcher(grammar)
            except UsageError as error:
                raise constraint.error(str(error)) from None

    def notice(self, constraint: Constraint) -> str | None:
        """A notice for the first use of a constraint, if it has keywords that have no effect."""
        with self._lock:
            if constraint in self._noticed:
                return None
            self._noticed[constraint] = None
            _forget_oldest(self._noticed)
        unknown = ", ".join(map(repr, unknown_keywords(constraint)))
        return f"{constraint.name}: {unknown} is no keyword of JSON Schema and constrains nothing" if unknown else None


def _forget_oldest(kept: dict[Constraint, Any]) -> None:
    while len(kept) > KEPT:
        del kept[next(iter(kept))]
