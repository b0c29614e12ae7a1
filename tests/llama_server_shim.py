"""`wsd-local serve` by the options of llama-server, in place of its program in llama.cpp's own tests.

    python tests/llama_server_shim.py [OPTIONS OF LLAMA-SERVER]

Serves the embedded pair. What llama-server divides between its slots, each of ours has: `--ctx-size` is divided here.
An option without an equivalent is refused; those that change nothing that a client sees are in `_WITHOUT_EFFECT`.
"""

from __future__ import annotations

import argparse
import os
import sys

_WITHOUT_EFFECT = {
    "alias": 1,
    "batch-size": 1,
    "cont-batching": 0,
    "hf-file": 1,
    "hf-repo": 1,
    "jinja": 0,
    "metrics": 0,
    "no-jinja": 0,
    "no-slots": 0,
    "offline": 0,
    "slots": 0,
    "ubatch-size": 1,
    "verbose": 0,
}
"""Options that are taken and not passed on, with the number of their values. The model is always the embedded pair."""


def command(arguments: list[str]) -> list[str]:
    """The command that serves as llama-server would with these arguments."""
    parser = argparse.ArgumentParser(prog="llama_server_shim", allow_abbrev=False)
    for name in ("host", "port", "temp", "seed", "threads", "n-predict", "api-key", "cors-origins"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--ctx-size", type=int, default=2048)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--kv-unified", action="store_true")
    for name, values in _WITHOUT_EFFECT.items():
        parser.add_argument(f"--{name}", action="store" if values else "store_true")
    asked = parser.parse_args(arguments)
    n_ctx = asked.ctx_size if asked.kv_unified else asked.ctx_size // asked.parallel
    options = {
        "pair": "demo",
        "host": asked.host,
        "port": asked.port,
        "parallel": asked.parallel,
        "ctx": n_ctx,
        "threads": asked.threads or "1",
        "temperature": asked.temp,
        "draft-temperature": asked.temp,
        "seed": asked.seed,
        "max-tokens": None if asked.n_predict == "-1" else asked.n_predict,
        "api-key": asked.api_key,
        "allow-origin": asked.cors_origins,
        "shutdown-timeout": "1",
    }
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return [sys.executable, "-m", "wsd_local", "serve", *given]


if __name__ == "__main__":
    words = command(sys.argv[1:])
    os.execv(words[0], words)
