"""Plugin for pytest: llama.cpp's own tests of llama-server, asked of `wsd-local serve`.

    cd tools/server/tests && PYTHONPATH=TESTS pytest -p llama_server_suite

Where llama-server differs in names alone, requests and answers are translated: its paths without `/v1` get one, a
model's name is left out, because llama-server answers whatever is named, as are `cache_prompt` and `id_slot`, because
the server decides on both here, and its own `/completion` becomes OpenAI's. What is asserted about the answers stays as
it is. Nothing is downloaded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import openai
import pytest

_NATIVE = ("/completion", "/completions")
_OPENAI = ("/chat/completions", "/models", "/responses")
_LEFT_OUT = ("model", "cache_prompt", "id_slot")
_RENAMED = {"n_predict": "max_tokens", "n_probs": "logprobs"}


class _Client(openai.OpenAI):
    """OpenAI's client; it names no model, and finds its endpoints at a base without `/v1`."""

    def _prepare_options(self, options: Any) -> Any:
        if isinstance(options.json_data, dict):
            options.json_data.pop("model", None)
        if not self.base_url.path.startswith("/v1"):
            options.url = f"/v1{options.url}"
        return super()._prepare_options(options)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Put translations in place before the tests are imported."""
    openai.OpenAI = _Client  # type: ignore[misc]
    downloads = ModuleType("wget")
    sys.modules["wget"] = downloads
    sys.path.insert(0, str(Path.cwd()))
    import utils  # type: ignore[import-not-found]

    utils.ServerPreset.load_all = staticmethod(lambda: None)
    process = utils.ServerProcess
    process.make_request = _whole(process.make_request)
    process.make_stream_request = _streamed(process.make_stream_request)


def _whole(original: Any) -> Any:
    def make_request(self: Any, method: str, path: str, data: Any = None, *more: Any, **others: Any) -> Any:
        answer = original(self, method, *_translated(path, data), *more, **others)
        if path in _NATIVE and answer.status_code == 200:
            answer.body = _native(answer.body)
        return answer

    return make_request


def _streamed(original: Any) -> Any:
    def make_stream_request(
        self: Any, method: str, path: str, data: Any = None, *more: Any, **others: Any
    ) -> Iterator[Any]:
        chunks = original(self, method, *_translated(path, data), *more, **others)
        yield from map(_native, chunks) if path in _NATIVE else chunks

    return make_stream_request


def _translated(path: str, data: Any) -> tuple[str, Any]:
    """A request's path and body, by our names."""
    native = path in _NATIVE
    path = "/v1/completions" if native else f"/v1{path}" if path.startswith(_OPENAI) else path
    if not isinstance(data, dict):
        return path, data
    body = {name: value for name, value in data.items() if name not in _LEFT_OUT}
    if native:
        body = {_RENAMED.get(name, name): value for name, value in body.items()}
    return path, body


def _native(answer: Any) -> Any:
    """An answer of OpenAI's completions as that of `/completion`, as far as tests of behaviour read it."""
    choices = answer.get("choices") or [{"text": "", "finish_reason": None}]
    usage = answer.get("usage") or {}
    found = [
        {
            "content": choice["text"],
            "stop": choice["finish_reason"] is not None,
            "timings": {"predicted_n": usage.get("completion_tokens"), "prompt_n": usage.get("prompt_tokens")},
        }
        for choice in choices
    ]
    return found[0] if len(found) == 1 else found
