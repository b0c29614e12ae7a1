"""The program that compiles and renders chat templates, which are untrusted programs.

Contract: runs as a child process (see `wsd_local.system.child`) of `wsd_local.prompts.templates` and exchanges frames
of JSON with it: first `{}` when it is ready, then one answer for each request. Jinja runs in its immutable sandbox, set
up as in transformers. Memory, length and processor time are limited here, elapsed time by the parent. A request
`{"template"}` compiles; `{"conversations", "values", "now"}` renders the first conversation that is not refused. An
answer is `{"text", "date"}`, or `{"error", "line", "reason"}` with the error broken, nested, refused, memory or length.
"""

from __future__ import annotations

import json
import struct
import sys
import time
import traceback
from datetime import datetime
from itertools import product
from typing import IO, Any, NoReturn

_FRAME = struct.Struct("<I")
MEMORY = 256 << 20
"""Bytes of memory that the process may use, in addition to `MEMORY_FACTOR` for each byte of a request."""
MEMORY_FACTOR = 24
_TEXT, _TEXT_FACTOR = 1 << 20, 4
"""Characters that a prompt may have, and additional ones for each byte of the request."""
_PROCESSOR_S = 4
"""Seconds of processor time for a request; ends the process even if the parent is gone."""
_LONGEST_REASON = 10_000
_AS_IN_TRANSFORMERS = {"tools": None, "documents": None}
"""As None, as in transformers. Templates that loop over tools unconditionally are rendered with them undefined."""


def write_frame(stream: IO[bytes], value: dict[str, Any]) -> None:
    """Send a value: its length and its JSON."""
    data = json.dumps(value, ensure_ascii=False).encode()
    stream.write(_FRAME.pack(len(data)) + data)
    stream.flush()


def read_frame(stream: IO[bytes], longest: int = (1 << 32) - 1) -> dict[str, Any] | None:
    """Receive a value; None at the end.

    Raises:
        ValueError: it is longer than `longest` bytes, or not JSON.
    """
    head = stream.read(_FRAME.size)
    if len(head) < _FRAME.size:
        return None
    (size,) = _FRAME.unpack(head)
    if size > longest:
        raise ValueError(f"an answer of {size} bytes")
    data = stream.read(size)
    return dict(json.loads(data), bytes=size) if len(data) == size else None


class TooLongError(Exception):
    """A template's output is too long."""


class Program:
    """A compiled template, and its environment."""

    def __init__(self) -> None:
        import jinja2.ext
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        self._environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, _generation_block()]
        )
        self._environment.globals.update(raise_exception=_raise, strftime_now=self._strftime)
        self._environment.filters["tojson"] = _tojson
        self._template: Any = None
        self._now = datetime.min
        self._date: str | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Compile or render."""
        try:
            return self._compiled(request["template"]) if "template" in request else self._rendered(request)
        except MemoryError as error:
            return {"error": "memory", "line": _template_line(error)}
        except TooLongError:
            return {"error": "length"}

    def _compiled(self, source: str) -> dict[str, Any]:
        import jinja2

        try:
            self._template = self._environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            return {"error": "broken", "line": error.lineno, "reason": _short(error.message or "")}
        except RecursionError:
            return {"error": "nested"}
        except MemoryError:
            raise
        except Exception as error:  # Jinja compiles to Python code, which can fail in its own ways
            return {"error": "broken", "reason": _short(str(error) or type(error).__name__)}
        return {}

    def _rendered(self, request: dict[str, Any]) -> dict[str, Any]:
        self._now, self._date = datetime.fromisoformat(request["now"]), None
        refusal: Exception | None = None
        longest = _TEXT + _TEXT_FACTOR * request["bytes"]
        for messages, without in product(request["conversations"], (_AS_IN_TRANSFORMERS, {})):
            try:
                text = self._text(messages, {**without, **request["values"]}, longest)
                text.encode()
            except (MemoryError, TooLongError):
                raise
            except Exception as error:  # a template is a program: it can fail in any way
                refusal = refusal or error
                continue
            return {"text": text, "date": self._date}
        assert refusal is not None
        reason = str(refusal) or type(refusal).__name__
        return {"error": "refused", "line": _template_line(refusal), "reason": _short(reason)}

    def _text(self, messages: list[dict[str, str]], values: dict[str, Any], longest: int) -> str:
        pieces: list[str] = []
        size = 0
        for piece in self._template.generate(**{"messages": messages, "add_generation_prompt": True, **values}):
            pieces.append(piece)
            size += len(piece)
            if size > longest:
                raise TooLongError
        return "".join(pieces)

    def _strftime(self, format: str) -> str:
        self._date = self._now.strftime(format)
        return self._date


def _raise(message: str) -> NoReturn:
    raise ValueError(message)


def _tojson(
    x: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON, with transformers' arguments: Jinja's own filter escapes for HTML."""
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _generation_block() -> type:
    """A Jinja extension for `{% generation %}`, which marks what an assistant wrote and prints it as it is."""
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser

    class GenerationBlock(Extension):
        tags = {"generation"}  # noqa: RUF012 - declared so by the library

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    return GenerationBlock


def _template_line(error: Exception) -> int | None:
    """The line of the template in which it failed."""
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == "<template>"]
    return lines[-1] if lines else None


def _short(text: str) -> str:
    return text[:_LONGEST_REASON].encode(errors="replace").decode()


def _limit(size: int) -> None:
    """Limit what requests of up to `size` bytes may take, where the system can."""
    if sys.platform == "win32":
        return
    import resource

    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: int(time.process_time()) + _PROCESSOR_S,
        resource.RLIMIT_DATA: MEMORY + MEMORY_FACTOR * size,
    }
    for kind, limit in limits.items():
        _, most = resource.getrlimit(kind)
        resource.setrlimit(kind, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))


def main() -> None:
    """Answer requests until there are no more."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    program = Program()
    write_frame(sink, {})
    largest = 0
    while (request := read_frame(source)) is not None:
        largest = max(largest, request["bytes"])  # what it took may not be given back to the system
        _limit(largest)
        write_frame(sink, program.answer(request))


if __name__ == "__main__":
    main()
