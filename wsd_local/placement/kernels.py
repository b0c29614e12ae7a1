"""How fast this machine's CPU reads weights of each type of quantisation.

Contract: measured, never assumed: a model of one layer in each type reads a prompt on one thread, in turns. The least
processor's time of each counts, which other programs hardly move, and is remembered in the cache folder for this
llama.cpp and this processor's features. The weights are zero, because a kernel takes the same time whatever it
multiplies. Where the measurement fails, nothing is claimed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from wsd_local.core.contexts import Question
from wsd_local.errors import WsdError
from wsd_local.files import read_memory, write_memory
from wsd_local.library.gguf import Header, Tensor
from wsd_local.library.vetting import amx_works
from wsd_local.llama import Cancellation, Context, ContextOptions, Model
from wsd_local.llama.devices import cpu_features, library_version
from wsd_local.paths import cache_dir
from wsd_local.placement.footprint import repacking

LOGGER = logging.getLogger(__name__)

USUAL = ("Q4_0", "Q4_K", "Q8_0")
"""Types to compare with: those of files that people usually find, and that quantising makes of any model."""
SLOW = 1.5
"""Times as long from which a type is called slow."""
ROUNDS = 12
WIDTH, HIDDEN, TOKENS = 512, 2048, 64
"""Of the measured model: its width, that of its feed-forward layer, and the tokens of its prompt and vocabulary."""


@dataclass(frozen=True, slots=True)
class SlowType:
    """A model's type of which reading takes `factor` times as long as with the type `faster`.

    `repacked`: whether llama.cpp keeps weights of these types in an order of its own here, `kind` first.
    """

    kind: str
    factor: float
    faster: str
    repacked: tuple[bool, bool]

    def sentence(self) -> str:
        """What a person should know."""
        why = ""
        if self.repacked == (False, True):
            why = f"; llama.cpp rearranges {self.faster} for this processor, and {self.kind} not"
        return (
            f"{self.kind} is slow on this processor: reading a prompt takes {self.factor:.1f} times as long as with "
            f"{self.faster} (measured here, one thread){why}"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def slow_type(headers: Sequence[Header]) -> SlowType | None:
    """What makes a model slow on this CPU, if reading it takes `SLOW` times as long as with a usual type or longer.

    Measures types that were not measured before, which takes a second or two.
    """
    tensors = [tensor for header in headers for tensor in header.tensors if _counts(tensor)]
    elements: Counter[str] = Counter()
    for tensor in tensors:
        elements[tensor.type] += tensor.elements
    if not elements:
        return None
    costs = measured(elements)
    return judged(elements, costs, repacking(cpu_features())) if costs.keys() >= elements.keys() else None


def judged(
    elements: Mapping[str, int], costs: Mapping[str, float], repacks: Callable[[Tensor], bool]
) -> SlowType | None:
    """See `slow_type`.

    Args:
        elements: numbers of a model's matrices by type.
        costs: what reading one of them costs in each type, in any unit.
        repacks: whether llama.cpp rearranges a tensor.
    """
    usual = [kind for kind in USUAL if kind in costs]
    if not usual:
        return None
    faster = min(usual, key=lambda kind: costs[kind])
    taken = {kind: count * costs[kind] for kind, count in elements.items()}
    factor = sum(taken.values()) / (sum(elements.values()) * costs[faster])
    if factor < SLOW:
        return None
    kind = max(taken, key=lambda name: taken[name])
    both = [repacks(Tensor("blk.0.ffn_up.weight", (WIDTH, HIDDEN), name, 0, 0)) for name in (kind, faster)]
    return SlowType(kind, factor, faster, (both[0], both[1]))


def _counts(tensor: Tensor) -> bool:
    return tensor.layer is not None and len(tensor.shape) > 1


# -- measuring -------------------------------------------------------------------------------------------------------


def measured(kinds: Iterable[str]) -> dict[str, float]:
    """What reading costs in these types and in `USUAL`, by that in the first of `USUAL`; those that can be measured."""
    repack = amx_works()
    traits = [library_version(), sorted(cpu_features()), repack]
    key = hashlib.sha256(json.dumps(traits).encode()).hexdigest()
    path = cache_dir() / "kernels.json"
    memory = read_memory(path)
    kept = memory.get(key)
    known = {name: cost for name, cost in kept.items() if type(cost) is float} if isinstance(kept, dict) else {}
    wanted = [*USUAL, *sorted(set(kinds) - set(USUAL))]
    if not known.keys() >= set(wanted):
        try:
            known |= _measure([USUAL[0], *[kind for kind in wanted if kind not in known and kind != USUAL[0]]], repack)
        except (WsdError, OSError, ValueError) as error:
            LOGGER.info("types of quantisation cannot be measured: %s", error)
            return {}
        write_memory(path, memory | {key: known})
    return {kind: known[kind] for kind in wanted if kind in known}


def _measure(kinds: Sequence[str], repack: bool) -> dict[str, float]:
    """Costs of types, by that of the first."""
    least = dict.fromkeys(kinds, math.inf)
    opened: list[tuple[Model, Context]] = []
    with TemporaryDirectory() as folder:
        try:
            for kind in kinds:
                path = one_layer(Path(folder) / f"{kind}.gguf", kind)
                model = Model(path, n_gpu_layers=0, load_mode="none", repack=repack)
                options = ContextOptions(n_ctx=2 * TOKENS, n_batch=TOKENS, n_rows=1, threads=1, flash_attn="off")
                opened.append((model, Context(model, options, Cancellation())))
                _read(opened[-1][1])
            for number in range(ROUNDS):
                first = number % len(kinds)
                for place in [*range(first, len(kinds)), *range(first)]:
                    least[kinds[place]] = min(least[kinds[place]], _read(opened[place][1]))
        finally:
            for model, context in reversed(opened):
                context.close()
                model.close()
    return {kind: seconds / least[kinds[0]] for kind, seconds in least.items()}


def _read(context: Context) -> float:
    """Seconds of the processor's time for a prompt."""
    context.forget(0)
    begun = time.process_time()
    context.ask(Question(0, list(range(TOKENS)), TOKENS - 1, lambda position, row: None))
    return time.process_time() - begun


def one_layer(path: Path, kind: str) -> Path:
    """Write a model of one layer whose matrices are of this type, and zero; returns its path.

    Raises:
        ValueError: there is no such type.
    """
    import gguf
    import numpy as np

    try:
        number = gguf.GGMLQuantizationType[kind]
    except KeyError:
        raise ValueError(f"there is no type {kind}") from None
    block, size = gguf.GGML_QUANT_SIZES[number]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2 * TOKENS)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(8)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(TOKENS)
    writer.add_tokenizer_model("no_vocab")
    writer.add_tensor("token_embd.weight", np.zeros((TOKENS, WIDTH), dtype=np.float32))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, dtype=np.float32))
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(WIDTH, dtype=np.float32))
    square, wide, narrow = (WIDTH, WIDTH), (HIDDEN, WIDTH), (WIDTH, HIDDEN)
    matrices = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), square)
    for name, (rows, columns) in {**matrices, "ffn_gate": wide, "ffn_up": wide, "ffn_down": narrow}.items():
        zeros = np.zeros((rows, columns // block * size), dtype=np.uint8)
        writer.add_tensor(f"blk.0.{name}.weight", zeros, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
