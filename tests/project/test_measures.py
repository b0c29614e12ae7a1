"""Sizes that keep the code readable, and imports without circles, checked on everything that ships."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = {"wsd_local": ROOT / "wsd_local", "wsd_chat": ROOT / "tui" / "wsd_chat"}
LINES_OF_A_MODULE = 400
LINES_OF_A_FUNCTION = 60
PARAMETERS = 8
PUBLIC_METHODS = 15
HOOKS = ("action_", "on_", "watch_", "validate_", "compute_", "key_")
"""What Textual calls by such names is no public method; nor is `compose`."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> Iterator[tuple[str, Path]]:
    """Each module's dotted name and file."""
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


TREES = {name: (path, ast.parse(path.read_text(encoding="utf-8"))) for name, path in modules()}


def functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def test_modules_are_short() -> None:
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, (path, _) in TREES.items()}
    assert {name: count for name, count in lines.items() if count > LINES_OF_A_MODULE} == {}


def test_functions_fit_a_screen() -> None:
    lines = {
        f"{name}.{function.name}": (function.end_lineno or 0) - function.lineno + 1
        for name, (_, tree) in TREES.items()
        for function in functions(tree)
    }
    assert {name: count for name, count in lines.items() if count > LINES_OF_A_FUNCTION} == {}


def test_functions_take_few_parameters() -> None:
    counts = {
        f"{name}.{function.name}": sum(argument.arg not in ("self", "cls") for argument in _parameters(function))
        for name, (_, tree) in TREES.items()
        for function in functions(tree)
    }
    assert {name: count for name, count in counts.items() if count > PARAMETERS} == {}


def _parameters(function: Function) -> list[ast.arg]:
    given = function.args
    return [*given.posonlyargs, *given.args, *given.kwonlyargs]


def test_classes_have_few_public_methods() -> None:
    counts = {
        f"{name}.{node.name}": len(_public(node))
        for name, (_, tree) in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    assert {name: count for name, count in counts.items() if count > PUBLIC_METHODS} == {}


def _public(node: ast.ClassDef) -> set[str]:
    """Methods and properties; a property and its setter are one."""
    names = {part.name for part in node.body if isinstance(part, Function)}
    return {name for name in names if not name.startswith(("_", *HOOKS)) and name != "compose"}


def imported(name: str, tree: ast.Module) -> set[str]:
    """Modules of ours that a module imports anywhere, also where only a type checker looks."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {_module_of(target) for target in found if target.split(".")[0] in PACKAGES} - {name}


def _module_of(target: str) -> str:
    while target not in TREES:
        target = target.rpartition(".")[0]
    return target


def test_no_module_imports_itself_through_others() -> None:
    graph = {name: imported(name, tree) for name, (_, tree) in TREES.items()}
    assert len(graph) > 50
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise AssertionError(" <- ".join(error.args[1])) from None
    assert set(order) == set(graph)
