"""llama.cpp's own programs over the same base file, and what they say of their speed.

Contract: figures by name, as in `wsd_local.reports.figures`. A peer that fails, reads another number of tokens than
was meant, or says nothing of its times raises `PeerError`, and so does one that is not there.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from wsd_local.core.resources import FlashAttention
from wsd_local.llama.options import FLASH_ATTENTION
from wsd_local.reports.figures import Figures

TRIES = 3
PATIENCE = 600
"""Seconds that llama-server may take to load its model, or to answer."""


class PeerError(Exception):
    """A peer that did not answer: what it said last."""


@dataclass(frozen=True, slots=True)
class Peers:
    """llama.cpp's own programs over the same base file."""

    folder: Path
    base: Path
    threads: int
    gpu_layers: int

    def _common(self) -> list[str]:
        return ["-m", str(self.base), "-t", str(self.threads), "-ngl", str(self.gpu_layers)]

    def bench(self, prompt: int, tokens: int, flash_attn: FlashAttention) -> Figures:
        """llama-bench, one repetition of each test: with this attention, and with its own default."""
        both = ",".join(dict.fromkeys([flash_attn, "auto"]))
        said = self._run("llama-bench", *self._common(), *f"-fa {both} -p {prompt} -n {tokens} -r 1 -o json".split())
        figures: Figures = {}
        for test in json.loads(said):
            name, rate = "pp" if test["n_prompt"] else "tg", float(test["avg_ts"])
            if test["flash_attn"] == FLASH_ATTENTION[flash_attn]:
                figures[f"peer_{name}_rate"] = rate
            if test["flash_attn"] == FLASH_ATTENTION["auto"]:
                figures[f"peer_default_{name}_rate"] = rate
        if len(figures) != 4:
            raise PeerError(f"llama-bench: {', '.join(figures) or 'nothing'} measured, for attention {both}")
        return figures

    def completion(self, prompt: Path, length: int, tokens: int) -> Figures:
        """llama-completion, base alone, greedy."""
        own = ["-no-cnv", "--no-display-prompt", "--simple-io", "--perf"]
        for _ in range(TRIES):  # a thread writes its log, and the program may end before it
            said = self._run("llama-completion", *self._common(), *self._reply(prompt, length, tokens), *own)
            read = re.search(r"prompt eval time = +([\d.]+) ms / +(\d+) tokens", said)
            total = re.search(r" total time = +([\d.]+) ms", said)
            if read is not None and total is not None:
                break
        if read is None or total is None:
            raise PeerError(f"llama-completion: no perf print in {_end(said)}")
        _require_length("llama-completion", int(read[2]), length)
        return {"completion_first_s": float(read[1]) / 1000, "completion_s": float(total[1]) / 1000}

    def speculative(self, draft: Path, prompt: Path, length: int, tokens: int) -> Figures:
        """llama-speculative-simple, greedy."""
        own = ["-md", str(draft), "--spec-type", "draft-simple", "-ngld", str(self.gpu_layers)]
        own += ["-td", str(self.threads), "-tbd", str(self.threads)]
        said = self._run("llama-speculative-simple", *self._common(), *self._reply(prompt, length, tokens), *own)
        times = [re.search(rf"{what} +(\d+) tokens in +([\d.]+) seconds", said) for what in ("encoded", "decoded")]
        accepted = re.search(r"accept += +([\d.]+)%", said)
        if times[0] is None or times[1] is None:
            raise PeerError(f"llama-speculative-simple: no times in {_end(said)}")
        _require_length("llama-speculative-simple", int(times[0][1]), length)
        written = int(times[1][1])
        seconds = float(times[0][2]) + float(times[1][2]) * tokens / written  # it stops after a round, not at a token
        return {
            "peer_speculative_s": seconds,
            "peer_speculative_accepted": float(accepted[1]) / 100 if accepted else 0.0,
        }

    @contextmanager
    def server(self, n_ctx: int) -> Iterator[Callable[[list[int]], Figures]]:
        """llama-server with the base loaded; asked for a prompt of tokens."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        own = f"-c {n_ctx} -np 1 -cram 0 --no-ui --host 127.0.0.1 --port {port}".split()
        command = [str(self.folder / "llama-server"), *self._common(), *own]
        with tempfile.TemporaryFile() as log:
            server = _begun(command, log, log)
            try:
                self._wait(server, port)
                yield lambda prompt: _first_token(port, prompt)
            except (OSError, http.client.HTTPException) as error:
                raise PeerError(f"llama-server: {error or type(error).__name__}") from error
            finally:
                server.terminate()
                server.wait()

    @staticmethod
    def _wait(server: subprocess.Popen[bytes], port: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while server.poll() is None:
            if time.monotonic() > deadline:
                raise PeerError(f"llama-server was not ready within {PATIENCE} s")
            try:
                if _get(port, "/health") == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise PeerError(f"llama-server ended with exit code {server.returncode}")

    def _reply(self, prompt: Path, length: int, tokens: int) -> list[str]:
        threads, n_ctx = self.threads, length + tokens + 64
        own = f"-n {tokens} -c {n_ctx} -tb {threads} --no-escape --ignore-eos --samplers top_k --top-k 1"
        return ["-bf", str(prompt), *own.split()]

    def _run(self, name: str, *arguments: str) -> str:
        with _begun([str(self.folder / name), *arguments], subprocess.PIPE, subprocess.PIPE) as run:
            out, err = (stream.decode(errors="replace") for stream in run.communicate())
        if run.returncode:
            raise PeerError(f"{name} ended with exit code {run.returncode}: {_end(err)}")
        return out if name == "llama-bench" else out + err


def _begun(command: list[str], stdout: IO[bytes] | int, stderr: IO[bytes] | int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "GGML_NO_BACKTRACE": "1", "LC_ALL": "C"}
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=environment)
    except OSError as error:
        raise PeerError(f"{command[0]}: {error.strerror}; build_peers.sh makes it") from error


def _end(said: str) -> str:
    return " ".join(said.split())[-300:]


def _require_length(name: str, found: int, wanted: int) -> None:
    if abs(found - wanted) > 1:  # it may hold the last token back for the first step
        raise PeerError(f"{name} read {found} tokens where {wanted} were meant")


def _get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return status


def _first_token(port: int, prompt: list[int]) -> Figures:
    """Seconds from the request to the first text."""
    asked = {"prompt": prompt, "n_predict": 4, "stream": True, "cache_prompt": False, "ignore_eos": True}
    asked |= {"samplers": ["top_k"], "top_k": 1}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    begun = time.perf_counter()
    connection.request("POST", "/completion", json.dumps(asked), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    seconds = 0.0
    for line in answer:
        if not seconds and line.startswith(b"data:") and b'"content"' in line:
            seconds = time.perf_counter() - begun
    connection.close()
    if answer.status != 200 or not seconds:
        raise PeerError(f"llama-server answered {answer.status} and no text")
    return {"server_first_s": seconds}
