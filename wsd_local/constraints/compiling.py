"""A constraint made into what llguidance reads, tried in a process of its own.

Contract: what comes out of `compiled` has been compiled once, with little memory, time and stack, and has written some
text, so that neither a crash nor an endless loop of a parser is one of this process. Everything llguidance does not
implement is a `UsageError` that names it.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from wsd_local.constraints.constraint import Constraint
from wsd_local.constraints.gbnf import portable
from wsd_local.constraints.schemas import portable_schema
from wsd_local.errors import UsageError, cut
from wsd_local.system import child
from wsd_local.system.child import Waiting
from wsd_local.units import MIB

T = TypeVar("T")
PATIENCE_S = 20.0
_MEMORY, _STACK, _LEAST_STACK = 3072 * MIB, 32 * MIB, MIB // 2
_STEPS = 48
_LONGEST_REASON = 300
LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_items_in_row": 20_000,
    "max_lexer_states": 50_000,
    "max_grammar_size": 500_000,
    "verbose_errors": False,
}
"""llguidance's limits, for each compilation and each token."""
_JSON = {
    "lenient": False,
    "coerce_one_of": False,
    # White space without end is the loop that small models like best.
    "whitespace_pattern": r" |\n {0,8}|\n\t{1,4}",
    "json_allow_general_unicode_escapes": False,
}


def compiled(constraint: Constraint, waiting: Waiting | None = None) -> str:
    """The constraint as llguidance's own description of a grammar.

    `waiting` is called regularly; returning False stops the work.

    Raises:
        UsageError: the constraint is wrong, too complex, or uses what is not implemented.
        CancelledError: `waiting` returned False.
    """
    code, printed = _try(constraint, waiting)
    if code is None:
        raise constraint.error(f"is too complex: it was not compiled within {PATIENCE_S:.0f} s")
    try:
        values = json.loads(printed)
        grammar, error = values.get("grammar"), values.get("error")
    except (ValueError, AttributeError):
        raise constraint.error(f"is too complex or nested too deeply: its compiler ended with {code}") from None
    if error is not None:
        raise constraint.error(error)
    return str(grammar)


def _try(constraint: Constraint, waiting: Waiting | None) -> tuple[int | None, str]:
    """The child's exit code, None if it took too long, and what it printed."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as out:
        source = Path(folder, "constraint.json")
        source.write_bytes(json.dumps([constraint.kind, constraint.source]).encode())
        trial = child.start([__name__, str(source.absolute())], stdout=out, stderr=subprocess.DEVNULL)
        try:
            code = child.wait(trial, PATIENCE_S, waiting, "stopped while a constraint was compiled")
        finally:
            child.end(trial)
        return code, child.text_of(out)


# -- in the child process ------------------------------------------------------------------------------------


def main() -> None:
    """Read a constraint from the file that is named; print its grammar or what is wrong with it, as JSON."""
    _limit()
    kind, source = json.loads(Path(sys.argv[1]).read_bytes())
    found: dict[str, str] = {}

    try:
        found["grammar"] = grammar_of(kind, source)
        matcher = on_large_stack(lambda: _compiled(found["grammar"]), _STACK)
        on_large_stack(lambda: _write(matcher), _LEAST_STACK)  # the least that a caller's thread may have
    except UsageError as error:
        found["error"] = _without_place(str(error)) if kind in ("grammar", "regex") else str(error)
    print(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # without taking apart what was compiled


def on_large_stack(work: Callable[[], T], size: int = 2 * _STACK) -> T:
    """What `work` returns or raises, on a thread with a stack of `size` bytes: llguidance's compiler calls itself."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    before = threading.stack_size(size)
    try:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _limit() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (int(PATIENCE_S), int(PATIENCE_S)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def grammar_of(kind: str, source: str) -> str:
    """A constraint as llguidance's description of a grammar.

    Raises:
        UsageError: it cannot be one; the text names no constraint.
    """
    from llguidance import LLMatcher

    if kind == "regex":
        return str(LLMatcher.grammar_from_regex(source))
    if kind == "lark":
        return str(LLMatcher.grammar_from_lark(_with_portable_schemas(source)))
    if kind == "json_schema":
        try:
            return str(LLMatcher.grammar_from_json_schema(portable_schema(source), overrides=_json_options(source)))
        except ValueError as error:
            raise UsageError(_short(str(error))) from None
    return str(LLMatcher.grammar_from_lark(_lark(source)))


def _with_portable_schemas(lark: str) -> str:
    """A Lark grammar whose JSON schemas are checked and written like those that stand alone."""
    written, at = "", 0
    for found in re.finditer(r"%json\s*(?=\{)", lark):
        if found.start() < at:  # in a schema
            continue
        try:
            _, end = json.JSONDecoder().raw_decode(lark, found.end())
        except (ValueError, RecursionError):  # llguidance reports what is wrong
            continue
        schema = Constraint("json_schema", lark[found.end() : end])
        written += lark[at : found.end()] + portable_schema(schema.source)
        at = end
    return written + lark[at:]


def _json_options(source: str) -> Any:
    """What else holds for JSON: a name has one spelling, so that no other passes for a name that is not declared.

    Control characters that have only the long spelling take it where the schema itself holds one.
    """
    long_only = any((char < " " or char == "\x7f") and char not in "\b\f\n\r\t" for char in _characters(source))
    return {**_JSON, "json_allowed_escapes": '"\\bfnrt' + ("u" if long_only else "")}


def _characters(source: str) -> set[str]:
    found: set[str] = set()
    left = [json.loads(source)]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str):
            found.update(value)
    return found


def _lark(gbnf: str) -> str:
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        return gbnf_to_lark(portable(gbnf))
    except RecursionError:
        raise UsageError("is nested too deeply") from None
    except Exception as error:  # the converter raises plain ones, too
        raise UsageError(f"cannot be used: {_short(str(error))}") from None


def _compiled(grammar: str) -> Any:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

    tokenizer = LLTokenizer(TokenizerWrapper(_Bytes()), eos_token=[_Bytes.eos_token_id], slices=[])
    limits = LLParserLimits(**LIMITS)
    _, messages = LLMatcher.validate_grammar_with_warnings(grammar, tokenizer, limits=limits)
    if messages:
        raise UsageError(_short(messages[0]))
    return LLMatcher(tokenizer, grammar, log_level=0, limits=limits)


def _write(matcher: Any) -> None:
    """Write some text over single bytes, as a reply would."""
    chance = random.Random(0)
    for _ in range(_STEPS):
        bias = matcher.compute_logit_bias()
        if matcher.is_error() and "NoExtension" not in matcher.get_error():
            raise UsageError(f"is too complex: {_short(matcher.get_error())}")
        allowed = [] if matcher.is_error() else [byte for byte in range(256) if bias[byte]]
        if not allowed and (matcher.is_error() or not bias[_Bytes.eos_token_id]):
            raise UsageError("there is no text that follows it")
        if not allowed:
            return
        matcher.consume_token(chance.choice(allowed))
        if matcher.is_stopped() and not matcher.is_error():
            return


class _Bytes:
    """The smallest vocabulary, in llguidance's form."""

    eos_token_id = 256
    bos_token_id = None
    tokens = (*(bytes([byte]) for byte in range(256)), b"")
    special_token_ids = ()

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


def _short(text: str) -> str:
    """An error of llguidance in one line, without the grammar that it quotes."""
    lines = text.split("<state>")[0].replace("<non-verbose/>", "").splitlines()
    text = " ".join(line.strip() for line in lines if not re.match(r"\s*(\d+ \||[\^~]+\s*$)", line) and line.strip())
    if text.startswith("oneOf"):
        return "oneOf is not supported where its parts do not exclude each other by type or constant; anyOf may do"
    if text.startswith("Unknown format"):
        text = f"{text} is not supported; leave the format out, or give a pattern instead"
    return cut(re.sub(r"(.)\1{9,}", r"\1\1\1…", text), _LONGEST_REASON)


def _without_place(text: str) -> str:
    """An error without its place in what the source was converted to."""
    return re.sub(r"^(at )?\d+\(\d+\): ", "", text)


if __name__ == "__main__":
    main()
