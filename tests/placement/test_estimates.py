"""Estimates against reality: the growth of a process that loads a model of a real shape and uses it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
from data_sets import vocabulary
from gguf.constants import GGMLQuantizationType as Type
from makers import random_llama
from makers_more import random_lfm2, random_mamba, random_sliding
from shapes import LLAMA_1B, LLAMA_3B, Shape, shaped_llama
from summary import Tell

from wsd_local.core.resources import FlashAttention, Machine
from wsd_local.library.gguf import read_model
from wsd_local.llama import Cancellation, Context, ContextOptions, Model
from wsd_local.llama.devices import cpu_features
from wsd_local.placement.footprint import footprint
from wsd_local.placement.plan import HOST, PlanRequest, plan
from wsd_local.units import GIB, MIB

THREADS = 2
PROGRAM = """
import json, sys
from pathlib import Path
import psutil
from wsd_local.llama import Cancellation, Context, ContextOptions, Model
path, mode, ctx, kind, flash = sys.argv[1:]
process = psutil.Process()
before = process.memory_info().rss
model = Model(Path(path), load_mode=mode)
options = ContextOptions(n_ctx=int(ctx), threads=2, cache_type_k=kind, cache_type_v=kind, flash_attn=flash)
context = Context(model, options, Cancellation())
context.logprobs(0, list(range(300, 400)), 68)
print(json.dumps({"growth": process.memory_info().rss - before}))
"""


def growth(path: Path, mode: str, ctx: int, kind: str, flash: str) -> int:
    """Bytes by which a process grows that loads the model and evaluates some tokens."""
    command = [sys.executable, "-c", PROGRAM, str(path), mode, str(ctx), kind, flash]
    done = subprocess.run(command, capture_output=True, check=True)
    return int(json.loads(done.stdout)["growth"])


def estimate(path: Path, mode: str, ctx: int, kind: str, flash: str) -> int:
    """What a plan on the CPU counts for it."""
    model = footprint(read_model(path), cpu_features())
    request = PlanRequest(ctx, kind, kind, flash=cast(FlashAttention, flash), mapped=mode == "mmap")
    return plan({"base": model}, Machine((), 100 * GIB, 100 * GIB, THREADS), request).used(HOST)


CASES = [("mmap", 4096, "f16", "auto"), ("none", 4096, "f16", "auto")]
MORE = [("none", 16384, "q8_0", "auto"), ("none", 8192, "f16", "off")]
SHAPES = [
    pytest.param(LLAMA_1B, Type.Q4_K, CASES, id="1B Q4_K"),
    pytest.param(LLAMA_1B, Type.Q4_0, CASES + MORE, id="1B Q4_0", marks=pytest.mark.slow),
    pytest.param(LLAMA_1B, Type.Q8_0, CASES, id="1B Q8_0", marks=pytest.mark.slow),
    pytest.param(LLAMA_3B, Type.Q4_K, CASES, id="3B Q4_K", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("shape", "kind", "cases"), SHAPES)
def test_within_five_percent(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    tell: Tell,
    shape: Shape,
    kind: Type,
    cases: list[tuple[str, int, str, str]],
) -> None:
    vocab = vocabulary("llama-bpe")
    path = shaped_llama(tmp_path / "model.gguf", shape, vocab, kind)
    lines = []
    for case in cases:
        expected, found = estimate(path, *case), growth(path, *case)
        mode, ctx, cache, flash = case
        setting = f"{request.node.callspec.id}, {mode}, {ctx} tokens, {cache} caches, flash {flash}"
        lines.append(f"{setting}: {expected / MIB:.0f} estimated, {found / MIB:.0f} MiB measured")
        assert abs(expected - found) <= 0.05 * found, lines[-1]
    path.unlink()
    tell("memory", *lines)


def test_caches_of_every_architecture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """llama.cpp says how large its caches are."""
    files = [
        random_llama(tmp_path / "llama.gguf"),
        random_mamba(tmp_path / "mamba.gguf"),
        random_lfm2(tmp_path / "lfm2.gguf"),
        random_sliding(tmp_path / "sliding.gguf"),
    ]
    for path in files:
        caplog.clear()
        with caplog.at_level("DEBUG", logger="wsd_local.llama"), Model(path) as model:
            Context(model, ContextOptions(n_ctx=1024, threads=1), Cancellation()).close()
        said = 0.0
        for message in (record.getMessage() for record in caplog.records):
            if ("KV buffer size" in message or "RS buffer size" in message) and "=" in message:
                said += float(message.split("=")[1].split("MiB")[0])
        ours = footprint(read_model(path)).caches(1024, "f16", "f16") / MIB
        assert said > 0
        assert abs(ours - said) < 0.011 * max(said, 1), path.name
