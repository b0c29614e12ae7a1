"""Every test asserts something, and not only in a loop that may be empty."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
Function = ast.FunctionDef | ast.AsyncFunctionDef
WHOLE = {"enumerate", "filter", "list", "pairwise", "product", "range", "reversed", "set", "sorted", "tuple", "zip"}
"""Calls that are empty only if what they are given is."""
VIEWS = {"items", "keys", "values"}
ENDS = {"fail", "raises", "skip", "warns"}
"""What pytest has that fails or ends a test."""
PAIRS = {"demo_f32", "demo_q8", "kin"}
"""Fixtures that are two files each."""


class Assertions:
    """Which functions of a module assert something, and which statements do so whenever they run."""

    def __init__(self, tree: ast.Module, shared: set[str] | None = None) -> None:
        self.functions = [node for node in ast.walk(tree) if isinstance(node, Function)]
        self.asserting = set(shared or ())
        self._full = PAIRS | {name for name in _assigned(tree.body) if name.isupper()}
        while found := {f.name for f in self.functions if self._may_assert(f)} - self.asserting:
            self.asserting |= found

    def _may_assert(self, function: Function) -> bool:
        return any(_fails(node) for node in ast.walk(function)) or self._calls(function)

    def certain(self, body: list[ast.stmt], full: frozenset[str] = frozenset()) -> bool:
        """Whether these statements assert something whenever they run."""
        for statement in body:
            if self._asserts(statement, full):
                return True
            if isinstance(statement, ast.Assign | ast.AnnAssign) and self._is_full(statement.value, full):
                full |= _assigned([statement])
            elif isinstance(statement, ast.Expr) and "assume" in _names(statement):
                full |= set(_names(statement))
        return False

    def _asserts(self, node: ast.stmt, full: frozenset[str]) -> bool:
        match node:
            case ast.Assert() | ast.Raise():
                return _fails(node)
            case ast.With(items=items, body=body) | ast.AsyncWith(items=items, body=body):
                return any(self._calls(item) for item in items) or self.certain(body, full)
            case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=final):
                either = [[*body, *orelse], *(handler.body for handler in handlers)]
                return all(self.certain(branch, full) for branch in either) or self.certain(final, full)
            case ast.If(body=body, orelse=orelse):
                return self.certain(body, full) and self.certain(orelse, full)
            case ast.For(iter=values, body=body):
                return self._is_full(values, full) and self.certain(body, full)
            case ast.Expr() | ast.Assign() | ast.AnnAssign() | ast.Return():
                return self._calls(node)
        return False

    def _calls(self, node: ast.AST) -> bool:
        """Whether something is called, or handed on to be called, that asserts."""
        return any(name in self.asserting or name in ENDS for name in _names(node))

    def _is_full(self, node: ast.expr | None, full: frozenset[str]) -> bool:
        """Whether a loop over this runs at least once, as far as the source shows."""
        match node:
            case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
                return bool(parts)
            case ast.Dict(keys=keys):
                return bool(keys)
            case ast.Constant(value=value):
                return bool(value)
            case ast.Name(id=name):
                return name in self._full or name in full or name.isupper()
            case ast.Subscript(value=value):
                return self._is_full(value, full)
            case ast.BinOp(left=left, right=right):
                return self._is_full(left, full) or self._is_full(right, full)
            case ast.IfExp(body=body, orelse=orelse):
                return self._is_full(body, full) and self._is_full(orelse, full)
            case ast.Call(func=ast.Attribute(value=value, attr=name)) if name in VIEWS:
                return self._is_full(value, full)
            case ast.Call(func=ast.Name(id=name), args=arguments) if name in WHOLE:
                return any(self._is_full(argument, full) for argument in arguments)
        return False


def _fails(node: ast.AST) -> bool:
    return isinstance(node, ast.Assert) or (isinstance(node, ast.Raise) and "AssertionError" in _names(node))


def _names(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.id
        elif isinstance(inner, ast.Attribute):
            yield inner.attr


def _assigned(body: list[ast.stmt]) -> frozenset[str]:
    targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in body if isinstance(node, ast.AnnAssign)]
    return frozenset(target.id for target in targets if isinstance(target, ast.Name))


@pytest.fixture(scope="module")
def helpers() -> set[str]:
    """Functions and methods of the shared modules that assert."""
    found: set[str] = set()
    for path in TESTS.glob("*.py"):
        found |= Assertions(ast.parse(path.read_text(encoding="utf-8"))).asserting
    return found


MODULES = sorted(TESTS.glob("*/test_*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_every_test_asserts_something(path: Path, helpers: set[str]) -> None:
    found = Assertions(ast.parse(path.read_text(encoding="utf-8")), helpers)
    tests = [function for function in found.functions if function.name.startswith("test_")]
    assert tests
    assert [test.name for test in tests if not found.certain(test.body)] == []


@pytest.mark.parametrize(
    ("body", "certain"),
    [
        ("run()", False),
        ("assert run()", True),
        ("for x in found():\n        assert x", False),
        ("for x in (1, 2):\n        assert x", True),
        ("for x in sorted(found()):\n        assert x", False),
        ("seen = [1]\n    for x in seen:\n        assert x", True),
        ("try:\n        run()\n    except ValueError as error:\n        assert error", False),
        ("with pytest.raises(ValueError):\n        run()", True),
        ("if run():\n        assert True", False),
        ("complains(run())", True),
    ],
)
def test_what_counts_as_an_assertion(body: str, certain: bool) -> None:
    tree = ast.parse(f"def complains(x):\n    assert x\n\ndef test_it():\n    {body}\n")
    found = Assertions(tree)
    assert found.certain(found.functions[1].body) is certain


def test_names_of_modules_are_unique() -> None:
    """They are imported by their names alone."""
    names = [path.name for path in TESTS.rglob("*.py") if path.name not in ("__init__.py", "conftest.py")]
    assert len(names) > len(MODULES)
    assert sorted(names) == sorted(set(names))
