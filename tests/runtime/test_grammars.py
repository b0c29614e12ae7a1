"""Compiled constraints of clients do not pile up."""

from __future__ import annotations

import pytest

from wsd_local.constraints.constraint import Constraint
from wsd_local.runtime import grammars


def test_the_newest_constraints_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []

    def compile_(constraint: Constraint, waiting: object) -> str:
        compiled.append(constraint.source)
        return constraint.source

    monkeypatch.setattr(grammars, "compiled", compile_)
    monkeypatch.setattr(grammars, "KEPT", 3)
    kept = grammars.Grammars()
    for number in range(10):
        kept.compile(Constraint("regex", str(number)))
        kept.notice(Constraint("json_schema", f'{{"unknown{number}": 1}}'))
    assert len(kept._compiled) == len(kept._noticed) == 3
    for number in (7, 8, 9):
        kept.compile(Constraint("regex", str(number)))
    assert compiled == [str(number) for number in range(10)]
    kept.compile(Constraint("regex", "0"))
    assert compiled[-1] == "0"
